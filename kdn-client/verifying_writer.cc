#include "kdn-client/verifying_writer.h"

#include <algorithm>

#include "kdn-client/stream_copy.h"

namespace kdn {

namespace {
// Small enough that bytes just hashed are still in the first-level cache when they are copied.
constexpr size_t kBlock = size_t{16} << 10;
// Slabs from this size on are not wanted in the cache: there are many, and they would only push each other out of it.
constexpr size_t kStreamFrom = size_t{64} << 10;
}  // namespace

void VerifyingWriter::Start(const SlabPlace& place) {
  place_ = place;
  direct_ = place.Direct();
  written_ = 0;
  hasher_.Restart();
}

void VerifyingWriter::Append(ByteSpan part) {
  while (!part.empty()) {
    const ByteSpan block = part.first(std::min(part.size(), kBlock));
    hasher_.Update(block);
    if (direct_.size() >= kStreamFrom && block.size() <= direct_.size() - written_) {
      StreamCopy(block.data(), direct_.data() + written_, block.size());
    } else {
      place_.Write(written_, block);
    }
    written_ += block.size();
    part = part.subspan(block.size());
  }
}

}  // namespace kdn
