#include "placement/daemon/route_request.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "storage/base/buffer.h"
#include "storage/base/status.h"
#include "storage/format/chunk_key.h"

namespace kdn {
namespace {

constexpr uint32_t kDefaultChunkTokens = 256;
constexpr size_t kMaxZoneBytes = 64;
constexpr size_t kMaxGroupBytes = 256;

absl::Status CheckNames(const v1::RouteRequest& request) {
  if (request.zone().size() > kMaxZoneBytes) {
    return InvalidArgument("zone has {} bytes; a zone's name has at most {}", request.zone().size(), kMaxZoneBytes);
  }
  if (request.groups_size() > kMaxRouteGroups) {
    return InvalidArgument("{} groups in one call; send at most {}", request.groups_size(), kMaxRouteGroups);
  }
  for (const v1::EngineGroup& group : request.groups()) {
    if (group.name().size() > kMaxGroupBytes || group.zone().size() > kMaxZoneBytes) {
      return InvalidArgument("a group's name has {} bytes and its zone {}; they may have {} and {}",
                             group.name().size(), group.zone().size(), kMaxGroupBytes, kMaxZoneBytes);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ChunkKey>> KeysOfTokens(const v1::RouteRequest& request, const SpaceId& space) {
  const auto tokens = static_cast<size_t>(request.tokens_size());
  if (tokens > kMaxRouteTokens)
    return InvalidArgument("{} tokens in one call; send at most {}", tokens, kMaxRouteTokens);
  const uint32_t chunk = request.chunk_tokens() == 0 ? kDefaultChunkTokens : request.chunk_tokens();
  if ((tokens + chunk - 1) / chunk > kMaxRouteKeys) {
    return InvalidArgument("{} tokens are more than {} chunks of {}; send fewer, or use larger chunks", tokens,
                           kMaxRouteKeys, chunk);
  }
  KDN_ASSIGN_OR_RETURN(const std::vector<ChunkRef> chain,
                       ChunkChain(space, chunk, std::span(request.tokens().data(), tokens)));
  std::vector<ChunkKey> keys;
  keys.reserve(chain.size());
  for (const ChunkRef& ref : chain) keys.push_back(ref.key);
  return keys;
}

absl::StatusOr<std::vector<ChunkKey>> SplitKeys(const std::string& bytes) {
  if (bytes.size() % kDigestSize != 0) {
    return InvalidArgument("keys has {} bytes; send {} for each key, one after another", bytes.size(), kDigestSize);
  }
  const size_t count = bytes.size() / kDigestSize;
  if (count > kMaxRouteKeys) return InvalidArgument("{} keys in one call; send at most {}", count, kMaxRouteKeys);
  std::vector<ChunkKey> keys(count);
  for (size_t i = 0; i < count; ++i) {
    std::copy_n(AsBytes(bytes).begin() + static_cast<ptrdiff_t>(i * kDigestSize), kDigestSize, keys[i].bytes.begin());
  }
  return keys;
}

void ToWire(const NodeInfo& node, v1::RouteNode& wire) {
  wire.set_id(node.id);
  wire.set_address(node.address);
  wire.set_zone(node.zone);
}

}  // namespace

absl::StatusOr<RouteQuestion> ParseRoute(const v1::RouteRequest& request) {
  KDN_RETURN_IF_ERROR(CheckNames(request));
  RouteQuestion question;
  const bool by_tokens = request.tokens_size() > 0;
  if (by_tokens && !request.keys().empty()) {
    return InvalidArgument("both keys and tokens; send one or the other");
  }
  // Keys alone are enough to say who owns them.
  if (by_tokens || request.ask_nodes() || !request.space_id().empty()) {
    if (request.space_id().size() != kDigestSize) {
      return InvalidArgument("space_id has {} bytes; a space is named by {}", request.space_id().size(), kDigestSize);
    }
    KDN_ASSIGN_OR_RETURN(question.space, SpaceId::FromBytes(AsBytes(request.space_id())));
  }
  if (by_tokens) {
    KDN_ASSIGN_OR_RETURN(question.keys, KeysOfTokens(request, question.space));
  } else {
    KDN_ASSIGN_OR_RETURN(question.keys, SplitKeys(request.keys()));
  }
  if (request.timeout_ms() > static_cast<uint64_t>(absl::ToInt64Milliseconds(kMaxRouteTimeout))) {
    return InvalidArgument("timeout_ms {} is too long; give at most {}", request.timeout_ms(),
                           absl::ToInt64Milliseconds(kMaxRouteTimeout));
  }
  if (request.timeout_ms() > 0) question.timeout = absl::Milliseconds(static_cast<int64_t>(request.timeout_ms()));
  return question;
}

void AnswerRoute(const Router& router, std::span<const ChunkKey> keys, std::span<const NodeHolding> held,
                 const v1::RouteRequest& request, v1::RouteResponse& response) {
  const Topology& topology = *router.topology();
  const RoutePlan plan = held.empty() ? router.Plan(keys, request.zone()) : router.Plan(keys, request.zone(), held);
  response.set_epoch(topology.epoch());
  response.set_prefix_chunks(plan.prefix_chunks);
  response.set_expected_ms(plan.expected_ms);
  response.mutable_runs()->Reserve(static_cast<int>(plan.runs.size()));
  for (const RouteSpan& run : plan.runs) {
    v1::RouteRun& wire = *response.add_runs();
    wire.set_first_chunk(run.first);
    wire.set_chunks(run.chunks);
    for (const NodeSlot slot : run.nodes.slots()) ToWire(*topology.NodeAt(slot), *wire.add_nodes());
    wire.set_tier(static_cast<uint32_t>(run.tier));
    wire.set_encoded_bytes(run.encoded_bytes);
    wire.set_expected_ms(run.expected_ms);
  }

  std::vector<v1::GroupRoute> groups;
  for (const v1::EngineGroup& group : request.groups()) {
    const ZoneRoute zone = router.ForZone(keys, group.zone(), held);
    v1::GroupRoute& wire = groups.emplace_back();
    wire.set_name(group.name());
    wire.set_prefix_chunks(zone.local_chunks);
    wire.set_reachable_chunks(zone.prefix_chunks);
    wire.set_expected_ms(zone.expected_ms);
  }
  std::ranges::stable_sort(groups, [](const v1::GroupRoute& a, const v1::GroupRoute& b) {
    return std::tuple(b.prefix_chunks(), a.expected_ms(), a.name()) <
           std::tuple(a.prefix_chunks(), b.expected_ms(), b.name());
  });
  for (v1::GroupRoute& group : groups) *response.add_groups() = std::move(group);
}

}  // namespace kdn
