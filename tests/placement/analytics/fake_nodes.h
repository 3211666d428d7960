// FakeNodes: nodes that say what a test lets them, and a topology of them.
//
//   FakeNodes nodes;
//   nodes.Set("a", SnapshotOf({.tokens = 100, .missed = 40}));
//   Collector collector({.topology = [&] { return nodes.topology(); }}, nodes, history, clock);
//
// Thread-safety: one thread at a time, but for Ask.
#ifndef KDN_TESTS_PLACEMENT_ANALYTICS_FAKE_NODES_H_
#define KDN_TESTS_PLACEMENT_ANALYTICS_FAKE_NODES_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "placement/analytics/node_analytics.h"
#include "placement/topology/topology.h"
#include "storage/analytics/snapshot.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn {

inline SpaceId SpaceOf(uint8_t number) {
  SpaceId space;
  space.bytes.fill(number);
  return space;
}

struct FakeCounts {
  SpaceId space = SpaceOf(1);
  double tokens = 0;
  double missed = 0;
  absl::Time since = absl::FromUnixSeconds(1'000'000);
  absl::Time taken = absl::FromUnixSeconds(1'000'000);
};

inline AnalyticsSnapshot SnapshotOf(const FakeCounts& counts) {
  AnalyticsSnapshot snapshot;
  snapshot.nodes = 1;
  snapshot.since = counts.since;
  snapshot.taken = counts.taken;
  SpaceAnalytics& space = snapshot.spaces.emplace_back();
  space.space = counts.space;
  space.requests = static_cast<uint64_t>(counts.tokens / 10);
  space.asked = {.chunks = counts.tokens / 10, .tokens = counts.tokens, .bytes = counts.tokens * 100};
  space.missed[static_cast<size_t>(MissCause::kNeverStored)] = {
      .chunks = counts.missed / 10, .tokens = counts.missed, .bytes = counts.missed * 100};
  const double hit = counts.tokens - counts.missed;
  space.found[0] = {.chunks = hit / 10, .tokens = hit, .bytes = hit * 100};
  space.delivered[0] = space.found[0];
  snapshot.tiers[0].held_bytes = 1000;
  snapshot.tiers[0].budget_bytes = 4000;
  return snapshot;
}

class FakeNodes final : public NodeAnalyticsSource {
 public:
  // What it answers from now on; a node that is new joins.
  void Set(const std::string& id, absl::StatusOr<AnalyticsSnapshot> answer) {
    if (!states_.contains(id)) states_[id] = NodeState::kActive;
    answers_.insert_or_assign("127.0.0.1:" + std::to_string(PortOf(id)), std::move(answer));
  }
  void SetState(const std::string& id, NodeState state) { states_[id] = state; }
  void Remove(const std::string& id) { states_.erase(id); }

  TopologyPtr topology() {
    TopologyParts parts;
    parts.cluster = "test";
    parts.cluster_id = 1;
    parts.epoch = ++epoch_;
    parts.partition_bits = 4;
    parts.replicas = 1;
    NodeSlot slot = 0;
    for (const auto& [id, state] : states_) {
      NodeInfo node;
      node.id = id;
      node.slot = slot++;
      node.address = "127.0.0.1:" + std::to_string(PortOf(id));
      node.state = state;
      parts.nodes.push_back(node);
    }
    parts.owners.assign(16, kNoSlot);
    absl::StatusOr<TopologyPtr> made = Topology::Make(std::move(parts));
    return made.ok() ? *made : nullptr;
  }

  void Ask(const std::string& address, const v1::GetAnalyticsRequest& request, absl::Duration, Done done) override {
    asked[address] = request;
    const auto answer = answers_.find(address);
    if (answer == answers_.end()) return done(Unavailable("nobody at {}", address));
    if (!answer->second.ok()) return done(answer->second.status());
    AnalyticsSnapshot told = *answer->second;
    std::erase_if(told.events, [&](const Event& event) { return event.sequence <= request.events_after(); });
    done(ToWire(told));
  }
  void Keep(const std::set<std::string>& addresses) override { kept = addresses; }
  void Cancel() override {}

  std::map<std::string, v1::GetAnalyticsRequest> asked;  // the last question, by address
  std::set<std::string> kept;

 private:
  static int PortOf(const std::string& id) {
    int port = 1000;
    for (const char c : id) port += c;
    return port;
  }

  Epoch epoch_ = 0;
  std::map<std::string, NodeState> states_;
  std::map<std::string, absl::StatusOr<AnalyticsSnapshot>> answers_;  // by address
};

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_ANALYTICS_FAKE_NODES_H_
