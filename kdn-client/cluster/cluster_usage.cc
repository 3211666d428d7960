#include "kdn-client/cluster/cluster_usage.h"

#include <string>
#include <utility>
#include <vector>

namespace kdn {

std::shared_ptr<UsageSink> ClusterUsageSink(std::shared_ptr<TopologySource> topology) {
  return AnyNodeUsageSink([topology = std::move(topology)] {
    std::vector<std::string> addresses;
    const TopologyPtr current = topology->Current();
    if (current == nullptr) return addresses;
    for (const NodeInfo& node : current->parts().nodes) {
      if (node.Serves()) addresses.push_back(node.address);
    }
    return addresses;
  });
}

}  // namespace kdn
