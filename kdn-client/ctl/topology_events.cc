#include "kdn-client/ctl/topology_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kdn::ctl {
namespace {

class Differ {
 public:
  Differ(const Topology& from, const Topology& to) : from_(from), to_(to) {}

  std::vector<ClusterEvent> Run() {
    for (const NodeInfo& node : to_.parts().nodes) Compare(from_.FindNode(node.id), node);
    for (const NodeInfo& node : from_.parts().nodes) {
      if (to_.FindNode(node.id) == nullptr) Add("node-forgotten", node.id, "is no longer part of the cluster");
    }
    Moves();
    Hot();
    return std::move(events_);
  }

 private:
  void Add(std::string kind, std::string subject, std::string text) {
    events_.push_back({to_.epoch(), std::move(kind), std::move(subject), std::move(text)});
  }

  void Compare(const NodeInfo* before, const NodeInfo& now) {
    if (before == nullptr) {
      return Add("node-joined", now.id, fmt::format("joined at {}, {}", now.address, NodeStateName(now.state)));
    }
    if (before->state != now.state) {
      Add("node-state", now.id, fmt::format("is {}, was {}", NodeStateName(now.state), NodeStateName(before->state)));
    } else if (before->incarnation != now.incarnation) {
      Add("node-restarted", now.id, "is back as another process, or after a gap in its session");
    }
    if (before->address != now.address)
      Add("node-moved", now.id, fmt::format("is at {}, was at {}", now.address, before->address));
    if (before->weight != now.weight)
      Add("node-weight", now.id, fmt::format("has weight {}, had {}", now.weight, before->weight));
    if (before->zone != now.zone)
      Add("node-zone", now.id, fmt::format("is in zone '{}', was in '{}'", now.zone, before->zone));
  }

  void Moves() {
    size_t begun = 0;
    size_t ended = 0;
    for (const auto& [partition, move] : to_.parts().moves) begun += from_.MoveOf(partition) == nullptr ? 1 : 0;
    for (const auto& [partition, move] : from_.parts().moves) ended += to_.MoveOf(partition) == nullptr ? 1 : 0;
    const size_t left = to_.parts().moves.size();
    if (begun > 0) Add("moves-begun", "", fmt::format("{} partitions begin to move; {} move now", begun, left));
    if (ended > 0) Add("moves-ended", "", fmt::format("{} partitions have settled; {} still move", ended, left));
  }

  void Hot() {
    for (const auto& [key, hot] : to_.parts().hot) {
      if (!from_.parts().hot.contains(key)) {
        Add("chunk-hot", key.ToHex(), fmt::format("is wanted so often that {} more nodes hold it", hot.extra.size()));
      }
    }
    for (const auto& [key, hot] : from_.parts().hot) {
      if (!to_.parts().hot.contains(key)) Add("chunk-cooled", key.ToHex(), "is held by its owners alone again");
    }
  }

  const Topology& from_;
  const Topology& to_;
  std::vector<ClusterEvent> events_;
};

}  // namespace

std::vector<ClusterEvent> EventsBetween(const Topology* from, const Topology& to) {
  if (from != nullptr) return Differ(*from, to).Run();
  const std::vector<NodeInfo>& nodes = to.parts().nodes;
  const auto up = std::ranges::count_if(nodes, [](const NodeInfo& node) { return node.Serves(); });
  return {{to.epoch(), "watching", "",
           fmt::format("cluster {}: {} nodes, {} of them up; {} partitions move", to.cluster(), nodes.size(), up,
                       to.parts().moves.size())}};
}

}  // namespace kdn::ctl
