// SlabHasher: SlabChecksum of bytes that come part by part, computed while each part is still in the processor's cache.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_FORMAT_SLAB_HASHER_H_
#define KDN_STORAGE_FORMAT_SLAB_HASHER_H_

#include <cstdint>
#include <memory>

#include "storage/base/buffer.h"

struct XXH3_state_s;

namespace kdn {

class SlabHasher {
 public:
  SlabHasher();

  void Restart();
  void Update(ByteSpan part);
  // Of all parts since Restart.
  uint64_t Checksum() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_SLAB_HASHER_H_
