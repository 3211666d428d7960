// kdnctl nodes, topology, drain, forget, weight, rebalance: who is in a cluster, and what each has to hold.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <thread>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/progress.h"
#include "kdn-client/ctl/wire_names.h"
#include "kdn/v1/placement.pb.h"
#include "storage/base/clock.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks(300);

absl::StatusOr<v1::ListNodesResponse> ListNodes(Context& context, Fleet& fleet) {
  v1::ListNodesResponse list;
  KDN_RETURN_IF_ERROR(fleet.placement().ListNodes(v1::ListNodesRequest(), context.Deadline(), list));
  return list;
}

const v1::NodeStatus* FindNode(const v1::ListNodesResponse& list, const std::string& id) {
  const auto at = std::ranges::find_if(list.nodes(), [&](const auto& node) { return node.node().id() == id; });
  return at == list.nodes().end() ? nullptr : &*at;
}

// Looks until `left` says that nothing is, and shows how far it is. DEADLINE_EXCEEDED after `timeout`.
absl::Status AwaitNone(Context& context, Fleet& fleet, const std::string& label, absl::Duration timeout,
                       const std::function<uint64_t(const v1::ListNodesResponse&)>& left) {
  const absl::Time until = RealNow() + timeout;
  Progress progress(context.terminal(), label);
  uint64_t most = 0;
  while (true) {
    // A registry that is away for a moment does not end the wait.
    const absl::StatusOr<v1::ListNodesResponse> list = ListNodes(context, fleet);
    if (!list.ok() && !absl::IsUnavailable(list.status())) return list.status();
    if (list.ok()) {
      const uint64_t now = left(*list);
      if (now == 0) return absl::OkStatus();
      most = std::max(most, now);
      progress.Update(most - now, most, "partitions");
    }
    if (RealNow() >= until) {
      return DeadlineExceeded("{}: it is not done after {}; it goes on, `kdnctl nodes` shows how far it is", label,
                              absl::FormatDuration(timeout));
    }
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

struct WaitFlags {
  bool no_wait = false;
  std::string timeout = "24h";
};
void DeclareWait(CLI::App& app, WaitFlags& flags) {
  app.add_flag("--no-wait", flags.no_wait, "Return at once; the cluster goes on by itself");
  app.add_option("--timeout", flags.timeout, "Longest wait")->type_name("DURATION")->capture_default_str();
}

uint64_t AllMoves(const v1::ListNodesResponse& list) {
  uint64_t moves = 0;
  for (const v1::NodeStatus& node : list.nodes()) {
    if (node.node().state() != v1::NODE_STATE_DOWN) moves += node.filling_partitions() + node.leaving_partitions();
  }
  return moves;
}

void AddNodes(const v1::ListNodesResponse& list, Report& report) {
  report.Add("cluster", "Cluster", Show::kText, list.cluster());
  report.Add("epoch", "Epoch", Show::kCount, list.epoch());
  Table& table = report.AddTable("nodes", "",
                                 {{"id", "NODE"},
                                  {"state", "STATE"},
                                  {"address", "ADDRESS"},
                                  {"zone", "ZONE"},
                                  {"weight", "WEIGHT", Show::kCount},
                                  {"share_percent", "SHARE", Show::kPercent},
                                  {"owned_partitions", "OWNS", Show::kCount},
                                  {"filling_partitions", "FILLS", Show::kCount},
                                  {"leaving_partitions", "LEAVES", Show::kCount},
                                  {"chunks", "CHUNKS", Show::kCount},
                                  {"memory_bytes", "MEMORY", Show::kBytes},
                                  {"memory_budget_bytes", "OF", Show::kBytes},
                                  {"disk_bytes", "DISK", Show::kBytes},
                                  {"disk_budget_bytes", "OF", Show::kBytes},
                                  {"sent_bytes_per_second", "SENDS", Show::kRate},
                                  {"busy_percent", "BUSY", Show::kPercent},
                                  {"moving_bytes", "", Show::kBytes}});
  for (const v1::NodeStatus& status : list.nodes()) {
    const v1::Node& node = status.node();
    const bool known = status.has_load();
    const auto of_load = [&](auto value) { return known ? Json(value) : Json(); };
    const v1::NodeLoad& load = status.load();
    table.Add({node.id(), StateName(node.state()), node.address(), node.zone().empty() ? Json() : Json(node.zone()),
               node.weight(), 100 * status.share(), status.owned_partitions(), status.filling_partitions(),
               status.leaving_partitions(), of_load(load.chunks()), of_load(load.memory_bytes()),
               of_load(load.memory_budget_bytes()), of_load(load.disk_bytes()), of_load(load.disk_budget_bytes()),
               of_load(load.sent_bytes_per_second()), of_load(load.busy_permille() / 10.0),
               of_load(load.moving_bytes_left())});
  }
}

absl::StatusOr<ExitCode> PrintTopology(Context& context, bool with_partitions) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
  const Topology& topology = *fleet->topology();
  const TopologyParts& parts = topology.parts();
  Report report;
  report.Add("cluster", "Cluster", Show::kText, parts.cluster);
  report.Add("cluster_id", "Cluster id", Show::kText, fmt::format("{:016x}", parts.cluster_id));
  report.Add("epoch", "Epoch", Show::kCount, parts.epoch);
  report.Add("partitions", "Partitions", Show::kCount, topology.partitions());
  report.Add("replicas", "Replicas", Show::kCount, parts.replicas);
  report.Add("moving_partitions", "Moving", Show::kCount, parts.moves.size());
  report.Add("hot_chunks", "Hot chunks", Show::kCount, parts.hot.size());
  const auto name_of = [&](NodeSlot slot) -> Json {
    const NodeInfo* node = topology.NodeAt(slot);
    return node == nullptr ? Json() : Json(node->id);
  };
  const auto names_of = [&](std::span<const NodeSlot> slots) {
    Json names = Json::array();
    for (const NodeSlot slot : slots) names.push_back(name_of(slot));
    return names;
  };
  Table& nodes = report.AddTable("nodes", "Nodes",
                                 {{"id", "NODE"},
                                  {"slot", "SLOT", Show::kCount},
                                  {"state", "STATE"},
                                  {"address", "ADDRESS"},
                                  {"zone", "ZONE"},
                                  {"weight", "WEIGHT", Show::kCount},
                                  {"capacity_bytes", "CAPACITY", Show::kBytes},
                                  {"owned_partitions", "OWNS", Show::kCount}});
  for (const NodeInfo& node : parts.nodes) {
    nodes.Add({node.id, node.slot, StateName(static_cast<v1::NodeState>(node.state)), node.address,
               node.zone.empty() ? Json() : Json(node.zone), node.weight, node.capacity_bytes,
               topology.ShareOf(node.slot).owned});
  }
  if (!parts.moves.empty()) {
    Table& moves =
        report.AddTable("moves", "Partitions that move",
                        {{"partition", "PARTITION", Show::kText}, {"filling", "FILLING"}, {"leaving", "LEAVING"}});
    for (const auto& [partition, move] : parts.moves) {
      moves.Add({partition, names_of(move.filling), names_of(move.leaving)});
    }
  }
  if (with_partitions) {
    Table& rows = report.AddTable("owners", "Owners", {{"partition", "PARTITION", Show::kText}, {"owners", "OWNERS"}});
    for (Partition partition = 0; partition < topology.partitions(); ++partition) {
      rows.Add({partition, names_of(topology.Owners(partition))});
    }
  }
  context.Print(report);
  return ExitCode::kDone;
}

}  // namespace

Runner DeclareNodes(CLI::App&) {
  return [](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
    KDN_ASSIGN_OR_RETURN(const v1::ListNodesResponse list, ListNodes(context, *fleet));
    Report report;
    AddNodes(list, report);
    context.Print(report);
    return ExitCode::kDone;
  };
}

Runner DeclareTopology(CLI::App& app) {
  auto partitions = std::make_shared<bool>(false);
  app.add_flag("--partitions", *partitions, "List the owners of every partition");
  return [partitions](Context& context) { return PrintTopology(context, *partitions); };
}

Runner DeclareDrain(CLI::App& app) {
  struct Flags {
    std::string node;
    bool undo = false;
    WaitFlags wait;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("NODE", flags->node, "Its id")->required()->type_name("");
  app.add_flag("--undo", flags->undo, "Take it back: it is given partitions again");
  DeclareWait(app, flags->wait);
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const absl::Duration timeout, DurationFlag("--timeout", flags->wait.timeout, true));
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
    const std::string& id = flags->node;
    if (!flags->undo) KDN_RETURN_IF_ERROR(context.Confirm(fmt::format("move everything off node {}", id)));
    v1::DrainRequest request;
    request.set_node_id(id);
    request.set_undo(flags->undo);
    v1::DrainResponse response;
    KDN_RETURN_IF_ERROR(fleet->placement().Drain(request, context.Deadline(), response));
    if (!flags->wait.no_wait) {
      KDN_RETURN_IF_ERROR(AwaitNone(context, *fleet, fmt::format("{} {}", flags->undo ? "take back" : "drain", id),
                                    timeout, [&](const v1::ListNodesResponse& list) -> uint64_t {
                                      if (flags->undo) return AllMoves(list);
                                      const v1::NodeStatus* node = FindNode(list, id);
                                      return node == nullptr ? 0
                                                             : node->owned_partitions() + node->leaving_partitions();
                                    }));
    }
    KDN_ASSIGN_OR_RETURN(const v1::ListNodesResponse list, ListNodes(context, *fleet));
    const v1::NodeStatus* node = FindNode(list, id);
    const uint64_t left = node == nullptr ? 0 : node->owned_partitions() + node->leaving_partitions();
    Report report;
    report.Add("node", "Node", Show::kText, id);
    report.Add("state", "State", Show::kText, node == nullptr ? Json() : Json(StateName(node->node().state())));
    report.Add("epoch", "Epoch", Show::kCount, list.epoch());
    report.Add("partitions_left", "Partitions left", Show::kCount, flags->undo ? Json() : Json(left));
    if (!flags->undo && left == 0)
      report.Note(fmt::format("{} holds nothing that others need; stop it, then `kdnctl forget {}`", id, id));
    context.Print(report);
    return ExitCode::kDone;
  };
}

Runner DeclareForget(CLI::App& app) {
  struct Flags {
    std::string node;
    bool force = false;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("NODE", flags->node, "Its id")->required()->type_name("");
  app.add_flag("--force", flags->force, "Even if it alone holds some chunks, which are lost then");
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
    KDN_RETURN_IF_ERROR(context.Confirm(fmt::format("take node {} out of the cluster for good{}", flags->node,
                                                    flags->force ? ", and give up what it alone holds" : "")));
    v1::DeregisterRequest request;
    request.set_node_id(flags->node);
    request.set_forget(true);
    request.set_force(flags->force);
    v1::DeregisterResponse response;
    KDN_RETURN_IF_ERROR(fleet->placement().Deregister(request, context.Deadline(), response));
    Report report;
    report.Add("node", "Forgotten", Show::kText, flags->node);
    report.Add("epoch", "Epoch", Show::kCount, response.epoch());
    context.Print(report);
    return ExitCode::kDone;
  };
}

Runner DeclareWeight(CLI::App& app) {
  struct Flags {
    std::string node;
    uint32_t weight = 0;
    WaitFlags wait;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("NODE", flags->node, "Its id")->required()->type_name("");
  app.add_option("WEIGHT", flags->weight, "Its share of the partitions in relation to other nodes'")
      ->required()
      ->type_name("")
      ->check(CLI::Range(1U, kMaxWeight));
  DeclareWait(app, flags->wait);
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const absl::Duration timeout, DurationFlag("--timeout", flags->wait.timeout, true));
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
    v1::SetWeightRequest request;
    request.set_node_id(flags->node);
    request.set_weight(flags->weight);
    v1::SetWeightResponse response;
    KDN_RETURN_IF_ERROR(fleet->placement().SetWeight(request, context.Deadline(), response));
    if (!flags->wait.no_wait) KDN_RETURN_IF_ERROR(AwaitNone(context, *fleet, "move partitions", timeout, AllMoves));
    Report report;
    KDN_ASSIGN_OR_RETURN(const v1::ListNodesResponse list, ListNodes(context, *fleet));
    AddNodes(list, report);
    context.Print(report);
    return ExitCode::kDone;
  };
}

Runner DeclareRebalance(CLI::App& app) {
  struct Flags {
    bool apply = false;
    WaitFlags wait;
  };
  auto flags = std::make_shared<Flags>();
  app.add_flag("--by-capacity", flags->apply,
               "Give each node the weight of its capacity in GiB; otherwise only say how even the shares are");
  DeclareWait(app, flags->wait);
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const absl::Duration timeout, DurationFlag("--timeout", flags->wait.timeout, true));
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
    KDN_ASSIGN_OR_RETURN(v1::ListNodesResponse list, ListNodes(context, *fleet));
    constexpr uint64_t kGiB = uint64_t{1} << 30;
    const auto fitting_weight = [](const v1::Node& node) {
      return static_cast<uint32_t>(std::clamp<uint64_t>((node.capacity_bytes() + kGiB / 2) / kGiB, 1, kMaxWeight));
    };
    const auto takes_part = [](const v1::Node& node) {
      return node.state() == v1::NODE_STATE_ACTIVE || node.state() == v1::NODE_STATE_JOINING;
    };
    uint64_t changed = 0;
    if (flags->apply) {
      for (const v1::NodeStatus& status : list.nodes()) {
        if (takes_part(status.node()) && status.node().weight() != fitting_weight(status.node())) ++changed;
      }
      if (changed > 0)
        KDN_RETURN_IF_ERROR(context.Confirm(fmt::format("change the weights of {} nodes, and move chunks", changed)));
      for (const v1::NodeStatus& status : list.nodes()) {
        const v1::Node& node = status.node();
        if (!takes_part(node) || node.weight() == fitting_weight(node)) continue;
        v1::SetWeightRequest request;
        request.set_node_id(node.id());
        request.set_weight(fitting_weight(node));
        v1::SetWeightResponse response;
        KDN_RETURN_IF_ERROR(fleet->placement().SetWeight(request, context.Deadline(), response));
      }
      if (!flags->wait.no_wait) KDN_RETURN_IF_ERROR(AwaitNone(context, *fleet, "rebalance", timeout, AllMoves));
      KDN_ASSIGN_OR_RETURN(list, ListNodes(context, *fleet));
    }
    uint64_t weights = 0;
    for (const v1::NodeStatus& status : list.nodes()) {
      if (takes_part(status.node())) weights += status.node().weight();
    }
    Report report;
    report.Add("changed_weights", flags->apply ? "Weights changed" : "", Show::kCount, changed);
    Table& table = report.AddTable("nodes", "",
                                   {{"id", "NODE"},
                                    {"weight", "WEIGHT", Show::kCount},
                                    {"weight_by_capacity", "BY CAPACITY", Show::kCount},
                                    {"share_percent", "SHARE", Show::kPercent},
                                    {"fair_share_percent", "BY WEIGHT", Show::kPercent},
                                    {"held_bytes", "HELD", Show::kBytes},
                                    {"capacity_bytes", "CAPACITY", Show::kBytes}});
    double worst = 0;
    for (const v1::NodeStatus& status : list.nodes()) {
      const v1::Node& node = status.node();
      const double fair = takes_part(node) && weights > 0 ? 100.0 * node.weight() / static_cast<double>(weights) : 0;
      worst = std::max(worst, std::abs(100 * status.share() - fair));
      table.Add({node.id(), node.weight(), fitting_weight(node), 100 * status.share(), fair,
                 status.has_load() ? Json(status.load().held_bytes()) : Json(), node.capacity_bytes()});
    }
    report.Add("worst_difference_percent", "Worst difference", Show::kPercent, worst);
    report.Add("moving_partitions", "Still moving", Show::kCount, AllMoves(list));
    report.Note(
        "Placement keeps shares in line with weights by itself, as far as zones and replicas let it; weights are "
        "yours.");
    context.Print(report);
    return ExitCode::kDone;
  };
}

}  // namespace kdn::ctl
