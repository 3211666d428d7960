#include "kdn-client/verifying_writer.h"

#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the widest vectors that this CPU has, chosen at run time
#endif

#include <algorithm>
#include <new>

namespace kdn {

namespace {
// Small enough that bytes just hashed are still in the first-level cache when they are copied.
constexpr size_t kBlock = size_t{16} << 10;
}  // namespace

void VerifyingWriter::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

VerifyingWriter::VerifyingWriter() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
}

void VerifyingWriter::Start(const SlabPlace& place) {
  place_ = place;
  written_ = 0;
  XXH3_64bits_reset(state_.get());
}

void VerifyingWriter::Append(ByteSpan part) {
  while (!part.empty()) {
    const ByteSpan block = part.first(std::min(part.size(), kBlock));
    XXH3_64bits_update(state_.get(), block.data(), block.size());
    place_.Write(written_, block);
    written_ += block.size();
    part = part.subspan(block.size());
  }
}

uint64_t VerifyingWriter::Checksum() const { return XXH3_64bits_digest(state_.get()); }

}  // namespace kdn
