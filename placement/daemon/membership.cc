#include "placement/daemon/membership.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace kdn {

bool NeedsJoin(const NodeRecord& record, const Topology& topology) {
  const NodeInfo* known = topology.FindNode(record.node.id);
  if (known == nullptr || !known->Serves()) return true;
  const NodeInfo joining = JoiningNode(record, topology);
  return known->incarnation != joining.incarnation || known->address != joining.address ||
         known->zone != joining.zone || known->weight != joining.weight ||
         known->capacity_bytes != joining.capacity_bytes;
}

NodeInfo JoiningNode(const NodeRecord& record, const Topology& topology) {
  NodeInfo node = record.node;
  const NodeInfo* known = topology.FindNode(node.id);
  if (known != nullptr && known->incarnation == node.incarnation) node.weight = known->weight;
  return node;
}

void Membership::Observe(const Topology& topology, SteadyClock::Point now) {
  std::set<std::string> serving;
  for (const NodeInfo& node : topology.parts().nodes) {
    if (node.Serves()) {
      serving.insert(node.id);
    } else if (serving_.contains(node.id)) {
      recently_lost_.push_back(now);
    }
  }
  serving_ = std::move(serving);
}

Membership::Due Membership::Decide(const ClusterView& view, const Topology& topology, SteadyClock::Point now,
                                   absl::Duration delay, const std::set<std::string>& prompt) {
  const auto wait = absl::ToChronoNanoseconds(delay);
  const auto ttl = absl::ToChronoNanoseconds(node_ttl_);
  while (!recently_lost_.empty() && now - recently_lost_.front() >= ttl) recently_lost_.pop_front();

  Due due;
  Times joins;
  std::unordered_set<std::string> alive;
  view.ForEachNode([&](const NodeRecord& record) {
    const std::string& id = record.node.id;
    alive.insert(id);
    if (!NeedsJoin(record, topology)) return;
    const auto refused = refused_.find(id);
    if (refused != refused_.end() && refused->second == record.revision) return;
    const auto since = join_since_.find(id);
    const SteadyClock::Point first = since == join_since_.end() ? now : since->second;
    joins[id] = first;
    if (prompt.contains(id) || now >= first + wait) {
      due.joins.push_back(record);
    } else {
      due.next = std::min(due.next, SteadyClock::Point(first + wait));
    }
  });
  join_since_ = std::move(joins);
  absl::erase_if(refused_, [&](const auto& entry) { return !alive.contains(entry.first); });
  std::ranges::sort(due.joins, {}, [](const NodeRecord& record) { return record.node.id; });

  Times missing;
  for (const std::string& id : serving_) {
    if (alive.contains(id)) continue;
    const auto since = missing_since_.find(id);
    missing[id] = since == missing_since_.end() ? now : since->second;
  }
  missing_since_ = std::move(missing);
  const size_t gone = missing_since_.size() + recently_lost_.size();
  const bool many = 2 * gone > serving_.size() + recently_lost_.size();
  for (const auto& [id, since] : missing_since_) {
    const SteadyClock::Point at = since + (many ? std::max(wait, ttl) : wait);
    if (now >= at) {
      due.losses.push_back(id);
    } else {
      due.next = std::min(due.next, at);
    }
  }
  std::ranges::sort(due.losses);
  return due;
}

}  // namespace kdn
