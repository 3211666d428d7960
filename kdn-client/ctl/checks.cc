#include "kdn-client/ctl/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "kdn-client/ctl/report.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr absl::Duration kClockTolerance = absl::Seconds(1);
// Beyond so much of the budget, a disk's file system must have the room that the budget still promises.
constexpr double kLittleFree = 0.05;  // of a file system
constexpr double kManyPinned = 0.5;   // of memory's chunks

class Examination {
 public:
  explicit Examination(const Examined& examined) : examined_(examined) {}

  std::vector<Finding> Run() {
    for (const ExaminedPlacement& placement : examined_.placements) CheckPlacement(placement);
    CheckPlacementsAgree();
    if (const TopologyPtr topology = Newest()) CheckTopology(*topology);
    for (const ExaminedNode& node : examined_.nodes) CheckNode(node);
    CheckQuotasAgree();
    CheckVersions();
    return std::move(findings_);
  }

 private:
  void Fine(std::string check, std::string subject, std::string what) {
    findings_.push_back({Severity::kFine, std::move(check), std::move(subject), std::move(what), ""});
  }
  void Warn(std::string check, std::string subject, std::string what, std::string mend) {
    findings_.push_back({Severity::kWarning, std::move(check), std::move(subject), std::move(what), std::move(mend)});
  }
  void Problem(std::string check, std::string subject, std::string what, std::string mend) {
    findings_.push_back({Severity::kProblem, std::move(check), std::move(subject), std::move(what), std::move(mend)});
  }

  TopologyPtr Newest() const {
    TopologyPtr newest;
    for (const ExaminedPlacement& placement : examined_.placements) {
      if (placement.topology == nullptr) continue;
      if (newest == nullptr || newest->epoch() < placement.topology->epoch()) newest = placement.topology;
    }
    return newest;
  }

  void CheckPlacement(const ExaminedPlacement& placement) {
    const std::string subject = "placement " + placement.address;
    if (placement.status.ok())
      return Fine("reachable", subject, fmt::format("answers, epoch {}", placement.topology->epoch()));
    Problem("reachable", subject, MessageOf(placement.status),
            "start kdn-placement there, or look whether it reaches its etcd; --placement may name a wrong address");
  }

  void CheckPlacementsAgree() {
    std::set<uint64_t> clusters;
    for (const ExaminedPlacement& placement : examined_.placements) {
      if (placement.topology != nullptr) clusters.insert(placement.topology->parts().cluster_id);
    }
    if (clusters.size() > 1) {
      Problem("one-cluster", "placement", fmt::format("the daemons serve {} different clusters", clusters.size()),
              "let all of them use the same registry; an embedded registry serves one daemon only");
    }
  }

  void CheckTopology(const Topology& topology) {
    const TopologyParts& parts = topology.parts();
    const std::string subject = "cluster " + parts.cluster;
    std::set<std::string> zones;
    size_t serving = 0;
    for (const NodeInfo& node : parts.nodes) {
      if (!node.Serves()) continue;
      ++serving;
      zones.insert(node.zone.empty() ? "node/" + node.id : node.zone);
    }
    if (serving < parts.replicas) {
      Problem("replicas", subject,
              fmt::format("{} nodes are up, and chunks are to have {} replicas", serving, parts.replicas),
              "start more nodes, or those that are down");
    } else if (zones.size() < parts.replicas) {
      Warn("replicas", subject,
           fmt::format("the nodes are in {} zones, and chunks are to have {} replicas", zones.size(), parts.replicas),
           "spread nodes over more zones (--zone), or a zone that fails takes chunks with it");
    } else {
      Fine("replicas", subject,
           fmt::format("{} replicas over {} nodes in {} zones", parts.replicas, serving, zones.size()));
    }
    size_t unowned = 0;
    for (Partition partition = 0; partition < topology.partitions(); ++partition) {
      const auto owners = topology.Owners(partition);
      const bool owned = std::ranges::any_of(owners, [&](NodeSlot slot) {
        const NodeInfo* node = topology.NodeAt(slot);
        return node != nullptr && node->Serves();
      });
      unowned += owned ? 0 : 1;
    }
    if (unowned > 0) {
      Problem("owners", subject,
              fmt::format("{} of {} partitions have no owner that is up", unowned, topology.partitions()),
              "bring nodes back that are down; stores to these partitions fail meanwhile");
    } else {
      Fine("owners", subject, "every partition has an owner that is up");
    }
    if (!parts.moves.empty()) {
      Warn("moves", subject, fmt::format("{} partitions are moving", parts.moves.size()),
           "nothing to do while the number falls (`kdnctl nodes`); else look at the nodes' logs, and at --move-rate");
    }
  }

  void CheckNode(const ExaminedNode& node) {
    const std::string subject = "node " + node.name;
    if (!node.up) {
      return Problem("reachable", subject, "it is down, says placement",
                     fmt::format("start it again; if it is gone for good, `kdnctl forget {}`", node.name));
    }
    if (!node.status.ok()) {
      const bool old = absl::IsUnimplemented(node.status);
      return Problem(old ? "version" : "reachable", subject, MessageOf(node.status),
                     old ? "bring the node up to this kdnctl's version"
                         : "start kdn-node there, or open its port; --node may name a wrong address");
    }
    Fine("reachable", subject,
         fmt::format("answers after {}", ToText(Show::kSeconds, absl::ToDoubleSeconds(node.answered - node.asked))));
    if (node.said.stopping()) Warn("stopping", subject, "it is stopping", "nothing, if that is wanted");
    CheckClock(node, subject);
    CheckMembership(node, subject);
    for (const v1::TierStatus& tier : node.said.tiers()) CheckTier(tier, subject);
    CheckQuotas(node, subject);
    CheckStats(node, subject);
  }

  void CheckClock(const ExaminedNode& node, const std::string& subject) {
    const absl::Time theirs = absl::FromUnixMillis(static_cast<int64_t>(node.said.unix_ms()));
    const absl::Time middle = node.asked + (node.answered - node.asked) / 2;
    const absl::Duration off = absl::AbsDuration(theirs - middle);
    const absl::Duration doubt = (node.answered - node.asked) / 2 + absl::Milliseconds(1);
    const std::string text = ToText(Show::kSeconds, absl::ToDoubleSeconds(off));
    if (off > kClockTolerance + doubt) {
      Warn("clock", subject, fmt::format("its clock is {} off this machine's", text),
           "run a time service (chrony, systemd-timesyncd); times to live and logs rely on it");
    } else {
      Fine("clock", subject,
           fmt::format("its clock is within {} of this machine's",
                       ToText(Show::kSeconds, absl::ToDoubleSeconds(off + doubt))));
    }
  }

  void CheckMembership(const ExaminedNode& node, const std::string& subject) {
    if (examined_.placements.empty()) return;
    if (node.said.node_id().empty()) {
      return Problem("session", subject, "it is no member of a cluster", "start it with --placement");
    }
    if (!node.said.registered()) {
      Problem("session", subject, "it has no session with placement", "look in its log why it cannot register");
    } else {
      Fine("session", subject, fmt::format("registered as {} in cluster {}", node.said.node_id(), node.said.cluster()));
    }
    if (node.said.epoch() < examined_.epoch) {
      Warn("epoch", subject, fmt::format("it goes by epoch {}, placement has {}", node.said.epoch(), examined_.epoch),
           "nothing if it catches up within seconds; else look whether it reaches the placement daemons");
    } else {
      Fine("epoch", subject, fmt::format("epoch {}", node.said.epoch()));
    }
  }

  void CheckTier(const v1::TierStatus& tier, const std::string& node) {
    const std::string subject = fmt::format("{}, {}", node, LevelName(tier.level()));
    const v1::TierStats& stats = tier.stats();
    if (stats.corrupt() > 0) {
      Problem("damage", subject, fmt::format("{} chunks were dropped because their checksums failed", stats.corrupt()),
              tier.level() == 0 ? "look at the machine's memory"
                                : "look at the disk's health (smartctl); run `kdnctl verify`");
    }
    if (stats.refused() > 0) {
      Warn("refused", subject, fmt::format("{} chunks found no room", stats.refused()),
           "raise the tier's budget or the space's quota, or pin less");
    }
    // Full is how a quota is when it has work to do: no reason to warn.
    if (tier.quota_used() > 0) {
      Fine("quota", subject,
           fmt::format("the space that takes most of its quota takes {}; `kdnctl spaces` has them all",
                       ToText(Show::kPercent, 100 * tier.quota_used())));
    }
    if (tier.level() == 0 || tier.total_bytes() == 0) return;
    const uint64_t promised = stats.budget_bytes() > stats.bytes() ? stats.budget_bytes() - stats.bytes() : 0;
    const std::string free = ToText(Show::kBytes, tier.free_bytes());
    if (promised > tier.free_bytes()) {
      Problem("disk-space", subject,
              fmt::format("{} has {} free, and the budget leaves room for {} more", tier.path(), free,
                          ToText(Show::kBytes, promised)),
              "free space there, or lower the tier's budget (--disk-bytes)");
    } else if (static_cast<double>(tier.free_bytes()) < kLittleFree * static_cast<double>(tier.total_bytes())) {
      Warn("disk-space", subject,
           fmt::format("{} has {} free of {}", tier.path(), free, ToText(Show::kBytes, tier.total_bytes())),
           "free space there: RocksDB needs some beyond the budget");
    } else {
      Fine("disk-space", subject, fmt::format("{} free", free));
    }
  }

  // Which quotas a node has, and from where.
  void CheckQuotas(const ExaminedNode& node, const std::string& subject) {
    std::string all;
    for (const v1::NamedQuota& named : node.said.quotas()) {
      all += fmt::format("{}{} may hold {} ({})", all.empty() ? "" : ", ",
                         named.space_id().empty() ? "each space" : "space " + Hex(named.space_id()).substr(0, 16),
                         ToText(Show::kPercent, 100 * named.quota().share()), QuotaSourceName(named.quota().source()));
    }
    if (node.said.more_quotas() > 0) all += fmt::format(", and {} more", node.said.more_quotas());
    if (!all.empty()) Fine("quota", subject, all);
  }

  // Nodes of a cluster that go by different quotas hold different parts of a space.
  void CheckQuotasAgree() {
    std::map<std::string, std::set<double>> shares;
    size_t nodes = 0;
    for (const ExaminedNode& node : examined_.nodes) {
      if (!node.up || !node.status.ok()) continue;
      ++nodes;
      for (const v1::NamedQuota& named : node.said.quotas()) shares[named.space_id()].insert(named.quota().share());
    }
    if (nodes < 2) return;
    for (const auto& [space, different] : shares) {
      size_t having = 0;
      for (const ExaminedNode& node : examined_.nodes) {
        for (const v1::NamedQuota& named : node.said.quotas()) having += named.space_id() == space ? 1U : 0U;
      }
      if (different.size() == 1 && having == nodes) continue;
      Warn(
          "quota", "nodes",
          fmt::format("their quotas for {} differ", space.empty() ? "each space" : "space " + Hex(space).substr(0, 16)),
          "set it on all of them at once (`kdnctl spaces quota`)");
    }
  }

  void CheckStats(const ExaminedNode& node, const std::string& subject) {
    const v1::StatsResponse& stats = node.stats;
    if (stats.write_back_dropped() > 0) {
      Warn("write-back", subject, fmt::format("{} chunks never reached the disk", stats.write_back_dropped()),
           "the disk is slower than what is stored: raise --write-back-bytes, or take a faster disk");
    }
    const uint64_t chunks = stats.memory().chunks();
    if (chunks > 0 && static_cast<double>(stats.pinned_chunks()) > kManyPinned * static_cast<double>(chunks)) {
      Warn("pins", subject, fmt::format("{} chunks are pinned, memory holds {}", stats.pinned_chunks(), chunks),
           "unpin what is no longer needed, or lower --max-pin");
    }
  }

  void CheckVersions() {
    std::set<std::string> versions;
    for (const ExaminedNode& node : examined_.nodes) {
      if (node.up && node.status.ok()) versions.insert(node.said.version());
    }
    if (versions.empty()) return;
    if (versions.size() > 1) {
      std::string all;
      for (const std::string& version : versions) all += (all.empty() ? "" : ", ") + version;
      return Warn("version", "nodes", "they run different versions: " + all, "finish the upgrade");
    }
    if (*versions.begin() != examined_.version) {
      return Warn("version", "kdnctl", fmt::format("it is {}, the nodes run {}", examined_.version, *versions.begin()),
                  "use a kdnctl of their version");
    }
    Fine("version", "nodes", "all run " + *versions.begin());
  }

  const Examined& examined_;
  std::vector<Finding> findings_;
};

}  // namespace

std::string_view SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kFine:
      return "ok";
    case Severity::kWarning:
      return "warning";
    case Severity::kProblem:
      return "problem";
  }
  return "unknown";
}

std::vector<Finding> FindingsOf(const Examined& examined) { return Examination(examined).Run(); }

}  // namespace kdn::ctl
