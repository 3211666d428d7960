// VerifyingWriter: puts a raw slab that arrives in parts into its place and computes its checksum in the same pass over
// memory.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_VERIFYING_WRITER_H_
#define KDN_KDN_CLIENT_VERIFYING_WRITER_H_

#include <cstdint>
#include <memory>

#include "storage/base/buffer.h"

struct XXH3_state_s;

namespace kdn {

class VerifyingWriter {
 public:
  VerifyingWriter();

  // Begins a slab that will fill `destination`.
  void Start(MutableByteSpan destination);
  // Writes the next bytes. They must fit in what is left of the destination.
  void Append(ByteSpan part);
  // SlabChecksum of what was appended since Start.
  uint64_t Checksum() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
  MutableByteSpan left_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_VERIFYING_WRITER_H_
