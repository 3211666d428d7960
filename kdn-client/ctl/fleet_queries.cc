#include "kdn-client/ctl/fleet_queries.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

absl::Status DownStatus(const FleetNode& node) {
  return Unavailable("node {} at {}: it is down, says placement", node.name, node.address);
}

void AddTo(v1::SpaceHeld& sum, const v1::SpaceHeld& more) {
  sum.set_chunks(sum.chunks() + more.chunks());
  sum.set_tokens(sum.tokens() + more.tokens());
  sum.set_encoded_bytes(sum.encoded_bytes() + more.encoded_bytes());
  sum.set_roots(sum.roots() + more.roots());
  sum.set_expiring(sum.expiring() + more.expiring());
  for (const v1::TierShare& share : more.tiers()) {
    auto& tiers = *sum.mutable_tiers();
    const auto at = std::ranges::find_if(tiers, [&](const auto& t) { return t.level() == share.level(); });
    v1::TierShare& into = at == tiers.end() ? *tiers.Add() : *at;
    into.set_level(share.level());
    into.set_chunks(into.chunks() + share.chunks());
    into.set_encoded_bytes(into.encoded_bytes() + share.encoded_bytes());
  }
  if (more.chunk_tokens() > sum.chunk_tokens()) {
    sum.set_chunk_tokens(more.chunk_tokens());
    sum.set_layers(more.layers());
    sum.set_heads(more.heads());
    sum.set_dim(more.dim());
    sum.set_dtype(more.dtype());
    sum.set_raw_bytes_per_token(more.raw_bytes_per_token());
  }
}

}  // namespace

std::map<size_t, absl::Status> AskEach(Fleet& fleet, const std::function<absl::Status(size_t, FleetNode&)>& work) {
  Mutex mu;
  std::map<size_t, absl::Status> failed;
  for (size_t i = 0; i < fleet.nodes().size(); ++i) {
    if (!fleet.nodes()[i]->up) failed.emplace(i, DownStatus(*fleet.nodes()[i]));
  }
  fleet.ForEachNode([&](size_t i, FleetNode& node) {
    absl::Status status = work(i, node);
    if (status.ok()) return;
    MutexLock lock(mu);
    failed.emplace(i, std::move(status));
  });
  return failed;
}

absl::Status NoneAnswered(const std::map<size_t, absl::Status>& failed) {
  if (failed.empty()) return NotFound("the cluster has no nodes yet; start kdn-node with --placement");
  // A node that was asked says more than one that placement knows to be down.
  const auto asked = std::ranges::find_if(failed, [](const auto& f) { return !absl::IsUnavailable(f.second); });
  return asked == failed.end() ? failed.begin()->second : asked->second;
}

absl::StatusOr<SpaceList> ListSpaces(Context& context) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  std::vector<v1::ListSpacesResponse> answers(fleet->nodes().size());
  const auto failed = AskEach(
      *fleet, [&](size_t i, FleetNode& node) { return node.admin().ListSpaces(context.Deadline(), answers[i]); });
  if (failed.size() == answers.size()) return NoneAnswered(failed);
  SpaceList list;
  for (const v1::ListSpacesResponse& answer : answers) {
    for (const v1::SpaceHeld& held : answer.spaces()) {
      KDN_ASSIGN_OR_RETURN(const SpaceId id, SpaceId::FromBytes(AsBytes(held.space_id())));
      if (held.chunks() == 0) continue;
      v1::SpaceHeld& sum = list.spaces[id];
      sum.set_space_id(held.space_id());
      AddTo(sum, held);
      ++list.nodes[id];
    }
  }
  for (const auto& [i, status] : failed) list.unreachable.push_back(MessageOf(status));
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!failed.contains(i)) list.said[i] = std::move(answers[i]);
  }
  return list;
}

const v1::HeldChunk* KeySightings::best() const {
  const v1::HeldChunk* best = nullptr;
  for (const Sighting& sighting : by_node) {
    if (!sighting.said.has_held()) continue;
    if (best == nullptr || best->fidelity() < sighting.said.held().fidelity()) best = &sighting.said.held();
  }
  return best;
}

std::vector<size_t> KeySightings::holders() const {
  std::vector<size_t> holders;
  for (const Sighting& sighting : by_node) {
    if (sighting.said.has_held()) holders.push_back(sighting.node);
  }
  return holders;
}

absl::StatusOr<Sightings> FindChunks(Context& context, std::span<const ChunkKey> keys) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  std::vector<std::vector<v1::Explained>> answers(fleet->nodes().size());
  Sightings sightings;
  sightings.failed = AskEach(*fleet, [&](size_t i, FleetNode& node) -> absl::Status {
    KDN_ASSIGN_OR_RETURN(answers[i], node.admin().Explain(keys, context.Deadline()));
    return absl::OkStatus();
  });
  if (sightings.failed.size() == answers.size()) return NoneAnswered(sightings.failed);
  for (size_t k = 0; k < keys.size(); ++k) {
    KeySightings& of_key = sightings.keys.emplace_back();
    of_key.key = keys[k];
    for (size_t i = 0; i < answers.size(); ++i) {
      if (!sightings.failed.contains(i)) of_key.by_node.push_back({.node = i, .said = std::move(answers[i][k])});
    }
  }
  return sightings;
}

std::map<SpaceId, std::vector<ChunkKey>> BySpace(const Sightings& sightings) {
  std::map<SpaceId, std::vector<ChunkKey>> by_space;
  for (const KeySightings& of_key : sightings.keys) {
    const v1::HeldChunk* const held = of_key.best();
    if (held == nullptr) continue;
    const absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(held->space_id()));
    if (space.ok()) by_space[*space].push_back(of_key.key);
  }
  return by_space;
}

}  // namespace kdn::ctl
