#include "storage/format/slab_hasher.h"

#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the widest vectors that this CPU has, chosen at run time
#endif

#include <new>

namespace kdn {

void SlabHasher::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

SlabHasher::SlabHasher() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  Restart();
}

void SlabHasher::Restart() { XXH3_64bits_reset(state_.get()); }

void SlabHasher::Update(ByteSpan part) { XXH3_64bits_update(state_.get(), part.data(), part.size()); }

uint64_t SlabHasher::Checksum() const { return XXH3_64bits_digest(state_.get()); }

}  // namespace kdn
