#include "kdn-client/verifying_writer.h"

#include <algorithm>

namespace kdn {

namespace {
// Small enough that bytes just hashed are still in the first-level cache when they are copied.
constexpr size_t kBlock = size_t{16} << 10;
}  // namespace

void VerifyingWriter::Start(const SlabPlace& place) {
  place_ = place;
  direct_ = place.Direct();
  written_ = 0;
  hasher_.Restart();
}

void VerifyingWriter::Append(ByteSpan part) {
  if (written_ < direct_.size() && part.data() == direct_.data() + written_) {
    hasher_.Update(part);
    written_ += part.size();
    return;
  }
  while (!part.empty()) {
    const ByteSpan block = part.first(std::min(part.size(), kBlock));
    hasher_.Update(block);
    place_.Write(written_, block);
    written_ += block.size();
    part = part.subspan(block.size());
  }
}

}  // namespace kdn
