#include "kdn-client/fetch_receiver.h"

#include <fmt/core.h>

#include <memory>
#include <utility>

#include "kdn/v1/node.pb.h"
#include "proto/wire/frames.h"
#include "storage/base/status.h"

namespace kdn {

Miss MissFromWire(int reason, const std::string& detail) {
  constexpr size_t kLongestDetail = 512;
  if (reason < 0 || reason >= kMissReasonCount) {
    return {MissReason::kProtocol, fmt::format("the node gave the unknown reason {}", reason)};
  }
  return {static_cast<MissReason>(reason), detail.substr(0, kLongestDetail)};
}

TierKind TierFromWire(int tier) {
  switch (tier) {
    case v1::TIER_MEMORY:
      return TierKind::kMemory;
    case v1::TIER_DISK:
      return TierKind::kDisk;
    default:
      return TierKind::kNone;
  }
}

absl::Status FetchReceiver::OnFrame(const grpc::ByteBuffer& message) {
  const absl::StatusOr<wire::ParsedFrame> frame = wire::ParseFrame(message);
  if (!frame.ok()) return DataLoss("{}", MessageOf(frame.status()));
  const size_t key = frame->where.chunk;
  if (key >= answers_.size()) return DataLoss("a frame is for chunk {} of {}", key, answers_.size());
  if (frame->has_header) OnResult(key, frame->header);
  if (frame->data_bytes == 0) return absl::OkStatus();
  if (answers_[key] == Answer::kNone) return DataLoss("chunk {}: data came before its result", key);
  if (answers_[key] != Answer::kComing) return absl::OkStatus();

  uint64_t offset = frame->where.offset;
  for (const ByteSpan part : frame->data) {
    sink_.OnPart(first_chunk_ + key, frame->where.slab, offset, part);
    offset += part.size();
  }
  return absl::OkStatus();
}

void FetchReceiver::OnResult(size_t key, const std::string& header) {
  const auto miss = [&](const Miss& why) {
    answers_[key] = Answer::kMissed;
    sink_.OnMiss(first_chunk_ + key, why);
  };
  v1::ChunkResult result;
  if (!result.ParseFromString(header)) return miss({MissReason::kProtocol, "the chunk's result is malformed"});
  if (result.miss() != v1::MISS_REASON_UNSPECIFIED) return miss(MissFromWire(result.miss(), result.detail()));

  absl::StatusOr<Manifest> manifest = DecodeManifest(AsBytes(result.manifest()));
  if (!manifest.ok()) {
    Miss why = MissFromStatus(manifest.status());
    if (why.reason == MissReason::kInternal) why.reason = MissReason::kProtocol;
    return miss(why);
  }
  const bool wanted = sink_.OnChunk(first_chunk_ + key, std::make_shared<const Manifest>(*std::move(manifest)),
                                    TierFromWire(result.tier()));
  answers_[key] = wanted ? Answer::kComing : Answer::kSkipped;
}

void FetchReceiver::Close(const absl::Status& breach) {
  for (size_t key = 0; key < answers_.size(); ++key) {
    if (!breach.ok()) {
      sink_.OnMiss(first_chunk_ + key, {MissReason::kProtocol, MessageOf(breach)});
    } else if (answers_[key] == Answer::kNone) {
      sink_.OnMiss(first_chunk_ + key, {MissReason::kProtocol, "the node ended the stream without an answer"});
    }
  }
}

}  // namespace kdn
