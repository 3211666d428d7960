#include <algorithm>
#include <charconv>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "placement/topology/rendezvous.h"
#include "placement/topology/topology_change.h"
#include "placement/topology/validate.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMaxFileBytes = size_t{4} << 20;

std::vector<std::string_view> Words(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  constexpr std::string_view kSpace = " \t\r";
  while (true) {
    const size_t begin = line.find_first_not_of(kSpace);
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    words.push_back(line.substr(0, line.find_first_of(kSpace)));
    line.remove_prefix(words.back().size());
  }
}

template <typename Number>
absl::StatusOr<Number> NumberFrom(std::string_view name, std::string_view text, Number least, Number most) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most) {
    return InvalidArgument("{} '{}' is none; give {} to {}", name, text.substr(0, kMaxNameBytes), least, most);
  }
  return number;
}

class StaticFile {
 public:
  absl::Status Read(std::string_view line) {
    const std::vector<std::string_view> words = Words(line);
    if (words.empty()) return absl::OkStatus();
    if (words[0] == "node") return ReadNode(words);
    if (words.size() != 2) {
      return InvalidArgument("'{}' with {} values; it takes one", words[0].substr(0, kMaxNameBytes), words.size() - 1);
    }
    if (!seen_.insert(std::string(words[0])).second) return InvalidArgument("'{}' a second time", words[0]);
    if (words[0] == "cluster") {
      options_.name = words[1];
      return ValidateName("cluster name", words[1]);
    }
    if (words[0] == "replicas") {
      KDN_ASSIGN_OR_RETURN(options_.replicas, NumberFrom<uint32_t>("replicas", words[1], 1, kMaxReplicas));
    } else if (words[0] == "partitions") {
      KDN_ASSIGN_OR_RETURN(options_.partition_bits,
                           NumberFrom<uint32_t>("partition bits", words[1], kMinPartitionBits, kMaxPartitionBits));
    } else if (words[0] == "epoch") {
      KDN_ASSIGN_OR_RETURN(epoch_, NumberFrom<Epoch>("epoch", words[1], 1, UINT64_MAX));
    } else {
      return InvalidArgument("'{}' is unknown; lines begin with cluster, epoch, replicas, partitions or node",
                             words[0].substr(0, kMaxNameBytes));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<TopologyPtr> Finish() {
    if (!seen_.contains("cluster")) return InvalidArgument("no line names the cluster; add 'cluster NAME'");
    if (nodes_.empty()) return InvalidArgument("no line names a node; add 'node ID HOST:PORT'");
    // From the name alone: a file that has changed, with a higher epoch, is still of the same cluster.
    options_.id = NodeHash("kdn/static/" + options_.name) | 1;
    KDN_ASSIGN_OR_RETURN(const TopologyPtr empty, NewCluster(options_));
    TopologyChange change(*empty);
    for (const NodeInfo& node : nodes_) KDN_RETURN_IF_ERROR(change.Join(node));
    change.Rebalance();
    KDN_ASSIGN_OR_RETURN(const TopologyPtr topology, std::move(change).Finish());
    TopologyParts parts = topology->parts();
    parts.epoch = epoch_;
    return Topology::Make(std::move(parts));
  }

 private:
  absl::Status ReadNode(const std::vector<std::string_view>& words) {
    if (words.size() < 3) return InvalidArgument("a node without an address; write 'node ID HOST:PORT'");
    NodeInfo node;
    node.id = words[1];
    node.address = words[2];
    for (size_t i = 3; i < words.size(); ++i) {
      constexpr std::string_view kZone = "zone=";
      constexpr std::string_view kWeight = "weight=";
      if (words[i].starts_with(kZone)) {
        node.zone = words[i].substr(kZone.size());
      } else if (words[i].starts_with(kWeight)) {
        KDN_ASSIGN_OR_RETURN(node.weight,
                             NumberFrom<uint32_t>("weight", words[i].substr(kWeight.size()), 1, kMaxWeight));
      } else {
        return InvalidArgument("'{}' of a node is unknown; give zone=NAME or weight=NUMBER",
                               words[i].substr(0, kMaxNameBytes));
      }
    }
    KDN_RETURN_IF_ERROR(ValidateNode(node));
    if (!ids_.insert(node.id).second) return InvalidArgument("node '{}' a second time", node.id);
    if (!addresses_.insert(node.address).second) {
      return InvalidArgument("node '{}': another node has the address {}", node.id, node.address);
    }
    if (nodes_.size() == kMaxNodes) return InvalidArgument("more than {} nodes", kMaxNodes);
    nodes_.push_back(std::move(node));
    return absl::OkStatus();
  }

  ClusterOptions options_;
  Epoch epoch_ = 1;
  std::vector<NodeInfo> nodes_;
  std::set<std::string> seen_;
  std::set<std::string> ids_;
  std::set<std::string> addresses_;
};

}  // namespace

absl::StatusOr<TopologyPtr> ParseStaticTopology(std::string_view text) {
  if (text.size() > kMaxFileBytes) {
    return InvalidArgument("a topology file of {} bytes; at most {} are read", text.size(), kMaxFileBytes);
  }
  StaticFile file;
  size_t number = 1;
  for (; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    KDN_RETURN_IF_ERROR(Annotate(file.Read(line), fmt::format("line {}", number)));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return file.Finish();
}

}  // namespace kdn
