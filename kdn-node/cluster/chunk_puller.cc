#include "kdn-node/cluster/chunk_puller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"
#include "storage/chunk_assembler.h"

namespace kdn {
namespace {

// Assembles the chunks of one batch as they come, and stores each when it is whole.
class PullSink final : public SlabSink {
 public:
  PullSink(TieredStore& store, MemberMetrics& metrics, std::span<const PeerChunk> asked, MoveReason reason)
      : store_(store), metrics_(metrics), asked_(asked), reason_(reason), coming_(asked.size()) {}

  uint64_t kept() const { return kept_; }

  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind) override {
    const PeerChunk& asked = asked_[chunk];
    if (manifest->key != asked.key || manifest->space != asked.space) {
      return Distrust(chunk, fmt::format("it came with the manifest of chunk {}", manifest->key.ToShortHex()));
    }
    if (reason_ != MoveReason::kHot && store_.SpareBytes(asked.space) < manifest->EncodedBytes()) {
      metrics_.Refused();
      return false;
    }
    const absl::StatusOr<std::string> bytes = EncodeManifest(*manifest);
    if (!bytes.ok()) return Distrust(chunk, MessageOf(bytes.status()));
    absl::StatusOr<ChunkAssembler> assembler = ChunkAssembler::Start(AsBytes(*bytes), store_.arena());
    if (!assembler.ok()) return Distrust(chunk, MessageOf(assembler.status()));
    coming_[chunk].emplace(Coming{.assembler = *std::move(assembler), .left = manifest->EncodedBytes()});
    return true;
  }

  MutableByteSpan Room(size_t chunk, uint32_t slab) override {
    if (!coming_[chunk].has_value()) return {};
    return coming_[chunk]->assembler.Room(slab);
  }

  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
    if (!coming_[chunk].has_value()) return;
    Coming& coming = *coming_[chunk];
    // What came into the room that was given out lies where it belongs already.
    if (!part.empty() && part.data() == coming.assembler.Room(slab).data()) {
      coming.assembler.Received(slab, part.size());
    } else if (const absl::Status added = coming.assembler.Add(slab, offset, part); !added.ok()) {
      Distrust(chunk, MessageOf(added));
      coming_[chunk].reset();
      return;
    }
    coming.left -= std::min<uint64_t>(coming.left, part.size());
    if (coming.left == 0) Complete(chunk);
  }

  // Evicted, erased or expired meanwhile, or damaged there: another node may have it.
  void OnMiss(size_t chunk, const Miss&) override { coming_[chunk].reset(); }

 private:
  struct Coming {
    ChunkAssembler assembler;
    uint64_t left = 0;  // bytes
  };

  bool Distrust(size_t chunk, const std::string& why) {
    metrics_.VerifyFailed();
    spdlog::warn("cluster: chunk {} from another node is not what it should be, and is not stored (request {}): {}",
                 asked_[chunk].key.ToShortHex(), CurrentTrace().RequestId(), why);
    return false;
  }

  void Complete(size_t index) {
    absl::StatusOr<Chunk> chunk = std::move(coming_[index]->assembler).Finish();
    coming_[index].reset();
    if (!chunk.ok()) {
      Distrust(index, MessageOf(chunk.status()));
      return;
    }
    const PeerChunk& asked = asked_[index];
    chunk->retention = asked.retention;
    const absl::Status kept =
        reason_ == MoveReason::kHot
            ? store_.Put(*chunk, Ack::kMemory, Checksums::kVerified)
            : store_.Adopt(*chunk, asked.durable ? Ack::kDurable : Ack::kMemory, Checksums::kVerified);
    if (kept.ok()) {
      ++kept_;
      metrics_.Moved(reason_, chunk->manifest->EncodedBytes());
    } else if (absl::IsResourceExhausted(kept)) {
      metrics_.Refused();
    } else {
      spdlog::warn("cluster: chunk {} came from another node and could not be stored: {}", asked.key.ToShortHex(),
                   MessageOf(kept));
    }
  }

  TieredStore& store_;
  MemberMetrics& metrics_;
  const std::span<const PeerChunk> asked_;
  const MoveReason reason_;
  std::vector<std::optional<Coming>> coming_;
  uint64_t kept_ = 0;
};

uint64_t BytesOf(std::span<const PeerChunk> chunks) {
  uint64_t bytes = 0;
  for (const PeerChunk& chunk : chunks) bytes += chunk.encoded_bytes;
  return bytes;
}

std::string_view LoggedReason(MoveReason reason) {
  switch (reason) {
    case MoveReason::kFill:
      return "fill";
    case MoveReason::kRepair:
      return "repair";
    case MoveReason::kHot:
      return "hot";
  }
  return "unknown";
}

}  // namespace

ChunkPuller::ChunkPuller(TieredStore& store, MemberMetrics& metrics, RateLimit& limit, Pauses& pauses,
                         const PullOptions& options)
    : store_(store),
      metrics_(metrics),
      limit_(limit),
      pauses_(pauses),
      options_(options),
      threads_(std::max<size_t>(options.parallel, 1) - 1) {}

bool ChunkPuller::HasRoomFor(const PeerChunk& chunk, uint64_t planned_bytes) {
  const uint64_t spare = store_.SpareBytes(chunk.space);
  if (planned_bytes <= spare && chunk.encoded_bytes <= spare - planned_bytes) return true;
  metrics_.Refused();
  return false;
}

ChunkPuller::Result ChunkPuller::Pull(Peer& from, std::span<const PeerChunk> chunks, MoveReason reason) {
  // A call is about one space.
  std::vector<PeerChunk> ordered(chunks.begin(), chunks.end());
  std::ranges::stable_sort(ordered, {}, &PeerChunk::space);
  std::vector<std::span<const PeerChunk>> batches;
  for (size_t first = 0, i = 0; i < ordered.size(); first = i) {
    uint64_t bytes = 0;
    while (i < ordered.size() && ordered[i].space == ordered[first].space && i - first < options_.batch_chunks &&
           bytes < options_.batch_bytes) {
      bytes += ordered[i++].encoded_bytes;
    }
    batches.push_back(std::span<const PeerChunk>(ordered).subspan(first, i - first));
  }

  Mutex mu;
  Result result;
  const auto total = static_cast<double>(BytesOf(ordered));
  metrics_.AddMovingBytes(total);
  threads_.ForEach(batches.size(), [&](size_t i) {
    {
      MutexLock lock(mu);
      if (!result.status.ok()) return;  // the peer is not asked any further
    }
    Result pulled = PullBatch(from, batches[i], reason);
    MutexLock lock(mu);
    result.kept += pulled.kept;
    if (result.status.ok()) result.status = pulled.status;
  });
  metrics_.AddMovingBytes(-total);
  return result;
}

ChunkPuller::Result ChunkPuller::PullBatch(Peer& from, std::span<const PeerChunk> batch, MoveReason reason) {
  // A peer may name any size: that of the largest chunk stands for more.
  uint64_t bytes = 0;
  std::vector<ChunkKey> keys;
  for (const PeerChunk& chunk : batch) {
    bytes += std::min(chunk.encoded_bytes, kMaxChunkBytes);
    keys.push_back(chunk.key);
  }
  if (!limit_.Take(bytes)) return {.status = Cancelled("the node is stopping")};
  const ScopedTrace trace(NewTrace());
  const absl::Time started = Clock::Real().Now();
  PullSink sink(store_, metrics_, batch, reason);
  const FetchQuery query = {
      .space = batch.front().space, .keys = keys, .least = Fidelity::kApproximate, .cancel = &pauses_.cancellation()};
  const absl::Status fetched = from.transport().Fetch(query, started + options_.timeout, sink);
  const Result result = {.status = fetched, .kept = sink.kept()};
  if (options_.request_log != nullptr) Log(from, batch, reason, result, started);
  return result;
}

void ChunkPuller::Log(const Peer& from, std::span<const PeerChunk> batch, MoveReason reason, const Result& result,
                      absl::Time started) const {
  const std::string peer = from.address();
  const LoggedRequest request = {.call = "pull",
                                 .span = {.trace = CurrentTrace()},
                                 .peer = peer,
                                 .protocol = "client",
                                 .status = result.status,
                                 .error = MessageOf(result.status),
                                 .failed = !result.status.ok() && !absl::IsCancelled(result.status),
                                 .took = Clock::Real().Now() - started};
  options_.request_log->Write(request, [&](LogFields& fields) {
    fields.Add("reason", LoggedReason(reason))
        .Add("space", batch.front().space.ToShortHex())
        .Add("chunks", batch.size())
        .Add("done", result.kept);
  });
}

}  // namespace kdn
