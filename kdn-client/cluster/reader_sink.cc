#include "kdn-client/cluster/reader_sink.h"

#include <algorithm>
#include <utility>

#include "kdn-client/cluster/reader_plan.h"

namespace kdn {

bool ReaderSink::OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) {
  if (chunk >= part_.size() || !IsHeard()) return false;
  if (!delivery_.OnChunk(part_[chunk], manifest, tier)) return false;
  heard_.begun[part_[chunk]] = 1;
  return true;
}

void ReaderSink::OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
  if (chunk < part_.size() && IsHeard()) delivery_.OnPart(part_[chunk], slab, offset, part);
}

void ReaderSink::OnMiss(size_t chunk, const Miss& miss) {
  if (chunk >= part_.size()) return;
  const bool kept_back = MayBeElsewhere(miss);
  if (kept_back) heard_.misses[part_[chunk]] = miss;
  if ((kept_back && !misses_count_) || !IsHeard()) return;
  if (!kept_back) delivery_.OnMiss(part_[chunk], miss);
}

bool ReaderSink::IsHeard() {
  if (!asked_) {
    asked_ = true;
    is_heard_ = claim_();
  }
  return is_heard_;
}

bool LastReaderSink::OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) {
  if (chunk >= left_.size()) return false;
  Answered();
  const bool first = left_[chunk] == kAwaited;
  if (!next_.OnChunk(chunk, manifest, tier)) {
    left_[chunk] = 0;
    return false;
  }
  if (!first) return true;
  if (IsAnswer(kept_back_[chunk])) ++second_reader_;
  uint64_t bytes = 0;
  for (const SlabInfo& slab : manifest->slabs) {
    if (layers_.Contains(slab.layer)) bytes += slab.encoded_size;
  }
  left_[chunk] = bytes;
  return true;
}

void LastReaderSink::OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
  if (chunk >= left_.size()) return;
  next_.OnPart(chunk, slab, offset, part);
  if (left_[chunk] != kAwaited) left_[chunk] -= std::min<uint64_t>(left_[chunk], part.size());
}

void LastReaderSink::OnMiss(size_t chunk, const Miss& miss) {
  if (chunk >= left_.size()) return;
  Answered();
  left_[chunk] = 0;
  next_.OnMiss(chunk, Telling(kept_back_[chunk], miss));
}

void LastReaderSink::Answered() {
  if (!std::exchange(answered_, true)) on_answer_();
}

void LastReaderSink::Close(const Miss& why) {
  for (size_t i = 0; i < left_.size(); ++i) {
    if (left_[i] == 0) continue;
    left_[i] = 0;
    next_.OnMiss(i, Telling(kept_back_[i], why));
  }
}

}  // namespace kdn
