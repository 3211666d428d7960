// VerifyingWriter: puts a raw slab that arrives in parts into its place and computes its checksum in the same pass over
// memory.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_VERIFYING_WRITER_H_
#define KDN_KDN_CLIENT_VERIFYING_WRITER_H_

#include <cstdint>
#include <memory>

#include "kdn-client/slab_place.h"
#include "storage/base/buffer.h"

struct XXH3_state_s;

namespace kdn {

class VerifyingWriter {
 public:
  VerifyingWriter();

  // Begins a slab. `place` must not convert, since parts may cut elements.
  void Start(const SlabPlace& place);
  // Writes the next bytes. Bytes beyond the slab are left out.
  void Append(ByteSpan part);
  // SlabChecksum of what was appended since Start.
  uint64_t Checksum() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
  SlabPlace place_;
  uint64_t written_ = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_VERIFYING_WRITER_H_
