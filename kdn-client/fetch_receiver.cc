#include "kdn-client/fetch_receiver.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "kdn-client/from_wire.h"
#include "kdn/v1/node.pb.h"
#include "storage/base/status.h"

namespace kdn {

absl::Status FetchReceiver::OnFrame(const grpc::ByteBuffer& message) {
  const absl::StatusOr<wire::ParsedFrame> frame = wire::ParseFrame(message);
  if (!frame.ok()) return DataLoss("{}", MessageOf(frame.status()));
  const size_t key = frame->where.chunk;
  if (key >= answers_.size()) return DataLoss("a frame is for chunk {} of {}", key, answers_.size());
  if (frame->has_header) OnResultBytes(key, frame->header);
  if (frame->data_bytes == 0) return absl::OkStatus();
  switch (answers_[key].state) {
    case State::kNone:
      return DataLoss("chunk {}: data came before its result", key);
    case State::kComing:
      return OnData(key, *frame);
    default:
      return absl::OkStatus();
  }
}

// Hands the data to the sink slab by slab.
absl::Status FetchReceiver::OnData(size_t key, const wire::ParsedFrame& frame) {
  const std::vector<SlabInfo>& slabs = answers_[key].manifest->slabs;
  uint32_t slab = frame.where.slab;
  uint64_t offset = frame.where.offset;
  for (ByteSpan part : frame.data) {
    while (!part.empty()) {
      if (slab >= slabs.size() || offset >= slabs[slab].encoded_size) {
        return DataLoss("chunk {}: data came for byte {} of slab {}, which it does not have", key, offset, slab);
      }
      const uint64_t left = slabs[slab].encoded_size - offset;
      const ByteSpan of_slab = part.first(std::min<uint64_t>(left, part.size()));
      sink_.OnPart(first_chunk_ + key, slab, offset, of_slab);
      part = part.subspan(of_slab.size());
      offset += of_slab.size();
      if (of_slab.size() < left) continue;
      offset = 0;
      slab = NextWanted(*answers_[key].manifest, slab + 1);
    }
  }
  return absl::OkStatus();
}

uint32_t FetchReceiver::NextWanted(const Manifest& manifest, uint32_t slab) const {
  while (slab < manifest.slabs.size() && !layers_.Contains(manifest.slabs[slab].layer)) ++slab;
  return slab;
}

absl::Status FetchReceiver::OnResult(size_t key, const v1::ChunkResult& result) {
  if (key >= answers_.size()) return DataLoss("a result is for chunk {} of {}", key, answers_.size());
  OnChunkResult(key, result);
  return absl::OkStatus();
}

absl::Status FetchReceiver::BeginSlab(size_t key, uint32_t slab, uint64_t bytes) {
  if (key >= answers_.size()) return DataLoss("a slab is for chunk {} of {}", key, answers_.size());
  Answer& answer = answers_[key];
  if (answer.state == State::kNone) return DataLoss("chunk {}: data came before its result", key);
  if (answer.state != State::kComing) return absl::OkStatus();
  const std::vector<SlabInfo>& slabs = answer.manifest->slabs;
  if (slab != answer.next_slab || slab >= slabs.size() || bytes != slabs[slab].encoded_size) {
    return DataLoss("chunk {}: slab {} of {} bytes came where slab {} must", key, slab, bytes, answer.next_slab);
  }
  answer.next_slab = NextWanted(*answer.manifest, slab + 1);
  return absl::OkStatus();
}

MutableByteSpan FetchReceiver::Room(size_t key, uint32_t slab) {
  if (answers_[key].state != State::kComing) return {};
  return sink_.Room(first_chunk_ + key, slab);
}

void FetchReceiver::OnPart(size_t key, uint32_t slab, uint64_t offset, ByteSpan part) {
  if (answers_[key].state == State::kComing) sink_.OnPart(first_chunk_ + key, slab, offset, part);
}

void FetchReceiver::OnResultBytes(size_t key, const std::string& bytes) {
  v1::ChunkResult result;
  if (result.ParseFromString(bytes)) return OnChunkResult(key, result);
  answers_[key] = {.state = State::kMissed};
  sink_.OnMiss(first_chunk_ + key, {MissReason::kProtocol, "the chunk's result is malformed"});
}

void FetchReceiver::OnChunkResult(size_t key, const v1::ChunkResult& result) {
  const auto miss = [&](const Miss& why) {
    answers_[key] = {.state = State::kMissed};
    sink_.OnMiss(first_chunk_ + key, why);
  };
  if (result.miss() != v1::MISS_REASON_UNSPECIFIED) return miss(MissFromWire(result.miss(), result.detail()));

  absl::StatusOr<Manifest> manifest = DecodeManifest(AsBytes(result.manifest()));
  if (!manifest.ok()) {
    Miss why = MissFromStatus(manifest.status());
    if (why.reason == MissReason::kInternal) why.reason = MissReason::kProtocol;
    return miss(why);
  }
  auto shared = std::make_shared<const Manifest>(*std::move(manifest));
  if (sink_.OnChunk(first_chunk_ + key, shared, TierFromWire(result.tier()))) {
    const uint32_t first = NextWanted(*shared, 0);
    answers_[key] = {.state = State::kComing, .manifest = std::move(shared), .next_slab = first};
  } else {
    answers_[key] = {.state = State::kSkipped};
  }
}

void FetchReceiver::Close(const absl::Status& breach) {
  for (size_t key = 0; key < answers_.size(); ++key) {
    if (!breach.ok()) {
      sink_.OnMiss(first_chunk_ + key, {MissReason::kProtocol, MessageOf(breach)});
    } else if (answers_[key].state == State::kNone) {
      sink_.OnMiss(first_chunk_ + key, {MissReason::kProtocol, "the node ended the stream without an answer"});
    }
  }
}

}  // namespace kdn
