#include "kdn-node/admin/chunk_answers.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kdn-node/admin/admin_wire.h"
#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

std::string CodecName(CodecId id) {
  const absl::StatusOr<const Codec*> codec = FindCodec(id);
  return codec.ok() ? std::string((*codec)->name()) : fmt::format("codec {}", static_cast<int>(id));
}

// What the node can say of a chunk that it does not hold: all that ever made it let go of chunks.
std::string WhyNotHeld(ServiceState& state) {
  const StoreStats stats = state.store.Stats();
  TierStats all = stats.memory;
  for (const TierStats& disk : stats.disks) {
    all.evictions += disk.evictions;
    all.expired += disk.expired;
    all.corrupt += disk.corrupt;
    all.refused += disk.refused;
  }
  const std::string since = absl::FormatDuration(absl::Trunc(state.clock.Now() - state.started, absl::Seconds(1)));
  if (all.evictions + all.expired + all.corrupt + all.refused + stats.write_back_dropped == 0) {
    return fmt::format(
        "not held; in the {} since it started this node has let go of no chunk by itself, so it was never stored here, "
        "deleted, or held in memory alone before the start",
        since);
  }
  return fmt::format(
      "not held; in the {} since it started this node has evicted {}, expired {}, dropped as damaged {} and refused {} "
      "chunks, and lost {} before they reached a disk",
      since, all.evictions, all.expired, all.corrupt, all.refused, stats.write_back_dropped);
}

v1::Departure::Cause CauseOf(LeftBy why) {
  switch (why) {
    case LeftBy::kEviction:
      return v1::Departure::CAUSE_EVICTED;
    case LeftBy::kExpiry:
      return v1::Departure::CAUSE_EXPIRED;
    case LeftBy::kDamage:
      return v1::Departure::CAUSE_DAMAGED;
    case LeftBy::kDelete:
      return v1::Departure::CAUSE_DELETED;
  }
  return v1::Departure::CAUSE_UNSPECIFIED;
}

v1::Tier TierOf(CountedTier tier) {
  switch (tier) {
    case CountedTier::kMemory:
      return v1::TIER_MEMORY;
    case CountedTier::kDisk:
      return v1::TIER_DISK;
    case CountedTier::kColdDisk:
      return v1::TIER_COLD_DISK;
  }
  return v1::TIER_UNSPECIFIED;
}

}  // namespace

bool DescribeHeldChunk(ServiceState& state, const ChunkKey& key, v1::HeldChunk& out) {
  const absl::StatusOr<std::vector<Holding>> holdings = state.store.Holdings(key);
  if (!holdings.ok()) return false;
  const Holding& best =
      *std::ranges::max_element(*holdings, {}, [](const Holding& holding) { return holding.manifest->fidelity; });
  const Manifest& manifest = *best.manifest;
  const absl::Time expires = best.retention.expires;
  const absl::Time now = state.clock.Now();
  if (expires <= now) return false;
  out.set_space_id(DigestToWire(manifest.space));
  out.set_key(DigestToWire(key));
  out.set_parent(DigestToWire(manifest.parent));
  out.set_first_token(manifest.first_token);
  out.set_tokens(manifest.tokens);
  out.set_encoded_bytes(manifest.EncodedBytes());
  out.set_raw_bytes(manifest.RawBytes());
  out.set_fidelity(ToWire(manifest.fidelity));
  if (expires != absl::InfiniteFuture()) out.set_ttl_ms(std::max<uint64_t>(1, WholeMilliseconds(expires - now)));
  out.set_lossy_allowed(best.retention.lossy_allowed);
  out.set_pinned(state.store.IsPinned(key));
  for (const Holding& holding : *holdings) {
    v1::HeldCopy& copy = *out.add_copies();
    copy.set_level(static_cast<uint32_t>(holding.level));
    copy.set_tier(ToWire(holding.tier));
    copy.set_fidelity(ToWire(holding.manifest->fidelity));
    copy.set_encoded_bytes(holding.manifest->EncodedBytes());
    std::set<CodecId> codecs;
    for (const SlabInfo& slab : holding.manifest->slabs) codecs.insert(slab.codec);
    for (const CodecId id : codecs) copy.add_codecs(CodecName(id));
  }
  return true;
}

absl::Status AnswerExplain(ServiceState& state, const v1::ExplainRequest& request, v1::ExplainResponse& response) {
  const std::string& keys = request.keys();
  if (keys.size() % kDigestSize != 0) {
    return InvalidArgument("keys have {} bytes; each takes {}", keys.size(), kDigestSize);
  }
  if (keys.size() > kMaxExplainKeys * kDigestSize) {
    return InvalidArgument("{} keys; ask for at most {} at a time", keys.size() / kDigestSize, kMaxExplainKeys);
  }
  std::optional<std::string> why;
  for (size_t at = 0; at < keys.size(); at += kDigestSize) {
    KDN_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(AsBytes(keys).subspan(at, kDigestSize)));
    v1::Explained& explained = *response.add_keys();
    if (DescribeHeldChunk(state, key, *explained.mutable_held())) continue;
    explained.clear_held();
    if (!why.has_value()) why = WhyNotHeld(state);
    explained.set_detail(*why);
    if (state.options.analytics == nullptr) continue;
    const std::optional<AnalyticsRecorder::Departure> left = state.options.analytics->DepartureOf(key);
    if (!left.has_value()) continue;
    explained.mutable_left()->set_why(CauseOf(left->why));
    explained.mutable_left()->set_tier(TierOf(left->tier));
    explained.mutable_left()->set_seconds_ago(left->seconds_ago);
  }
  return absl::OkStatus();
}

}  // namespace kdn
