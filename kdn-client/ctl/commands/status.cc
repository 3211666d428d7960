// kdnctl status: one node, or a cluster at a glance.
#include "storage/base/status.h"

#include <CLI/CLI.hpp>
#include <map>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/wire_names.h"
#include "kdn/v1/placement.pb.h"

namespace kdn::ctl {
namespace {

double PercentOf(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

absl::StatusOr<ExitCode> PrintNode(Context& context, FleetNode& node) {
  v1::InspectResponse who;
  v1::StatsResponse stats;
  KDN_RETURN_IF_ERROR(node.admin().Inspect(context.Deadline(), who));
  KDN_RETURN_IF_ERROR(node.admin().Stats(context.Deadline(), stats));
  Report report;
  report.Add("node", "Node", Show::kText, node.name);
  report.Add("address", "Address", Show::kText, node.address);
  report.Add("version", "Version", Show::kText, who.version());
  report.Add("uptime_seconds", "Up for", Show::kSeconds, static_cast<double>(who.uptime_ms()) / 1000);
  report.Add("stopping", who.stopping() ? "Stopping" : "", Show::kText, who.stopping());
  const bool member = !who.node_id().empty();
  const char* const shown = member ? nullptr : "";
  report.Add("node_id", shown ? shown : "Node id", Show::kText, member ? Json(who.node_id()) : Json());
  report.Add("cluster", shown ? shown : "Cluster", Show::kText, member ? Json(who.cluster()) : Json());
  report.Add("epoch", shown ? shown : "Epoch", Show::kCount, member ? Json(who.epoch()) : Json());
  report.Add("registered", shown ? shown : "Registered", Show::kText, member ? Json(who.registered()) : Json());
  report.Add("leases", "Leases", Show::kCount, stats.leases());
  report.Add("pinned_chunks", "Pinned chunks", Show::kCount, stats.pinned_chunks());
  report.Add("write_back_pending_bytes", "Waiting for disk", Show::kBytes, stats.write_back_pending_bytes());
  report.Add("write_back_dropped", "", Show::kCount, stats.write_back_dropped());
  report.Add("demoted", "", Show::kCount, stats.demoted());
  report.Add("promoted", "", Show::kCount, stats.promoted());
  report.Add("scrubbed_chunks", "", Show::kCount, stats.scrubbed_chunks());
  Table& tiers = report.AddTable("tiers", "Tiers",
                                 {{"tier", "TIER"},
                                  {"path", "PATH"},
                                  {"chunks", "CHUNKS", Show::kCount},
                                  {"held_bytes", "HELD", Show::kBytes},
                                  {"budget_bytes", "BUDGET", Show::kBytes},
                                  {"used_percent", "USED", Show::kPercent},
                                  {"hits", "HITS", Show::kCount},
                                  {"evictions", "EVICTED", Show::kCount},
                                  {"expired", "EXPIRED", Show::kCount},
                                  {"refused", "REFUSED", Show::kCount},
                                  {"corrupt", "DAMAGED", Show::kCount},
                                  {"free_bytes", "DISK FREE", Show::kBytes}});
  for (const v1::TierStatus& tier : who.tiers()) {
    const v1::TierStats& s = tier.stats();
    tiers.Add({LevelName(tier.level()), tier.path().empty() ? Json() : Json(tier.path()), s.chunks(), s.bytes(),
               s.budget_bytes(), PercentOf(s.bytes(), s.budget_bytes()), s.hits(), s.evictions(), s.expired(),
               s.refused(), s.corrupt(), tier.total_bytes() == 0 ? Json() : Json(tier.free_bytes())});
  }
  Table& fetches = report.AddTable("fetch_results", "Chunks fetched, by result",
                                   {{"result", "RESULT"}, {"chunks", "CHUNKS", Show::kCount}});
  for (const auto& [result, chunks] :
       std::map<std::string, uint64_t>(stats.fetch_results().begin(), stats.fetch_results().end())) {
    fetches.Add({result == "none" ? "hit" : result, chunks});
  }
  context.Print(report);
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> PrintCluster(Context& context, Fleet& fleet) {
  v1::ListNodesResponse list;
  KDN_RETURN_IF_ERROR(fleet.placement().ListNodes(v1::ListNodesRequest(), context.Deadline(), list));
  std::map<std::string, uint64_t> by_state;
  v1::NodeLoad sum;
  uint64_t filling = 0;
  for (const v1::NodeStatus& node : list.nodes()) {
    ++by_state[std::string(StateName(node.node().state()))];
    filling += node.filling_partitions();
    const v1::NodeLoad& load = node.load();
    sum.set_chunks(sum.chunks() + load.chunks());
    sum.set_memory_bytes(sum.memory_bytes() + load.memory_bytes());
    sum.set_memory_budget_bytes(sum.memory_budget_bytes() + load.memory_budget_bytes());
    sum.set_disk_bytes(sum.disk_bytes() + load.disk_bytes());
    sum.set_disk_budget_bytes(sum.disk_budget_bytes() + load.disk_budget_bytes());
    sum.set_sent_bytes_per_second(sum.sent_bytes_per_second() + load.sent_bytes_per_second());
    sum.set_received_bytes_per_second(sum.received_bytes_per_second() + load.received_bytes_per_second());
    sum.set_moving_bytes_left(sum.moving_bytes_left() + load.moving_bytes_left());
  }
  const TopologyParts& parts = fleet.topology()->parts();
  Report report;
  report.Add("cluster", "Cluster", Show::kText, list.cluster());
  report.Add("epoch", "Epoch", Show::kCount, list.epoch());
  report.Add("replicas", "Replicas", Show::kCount, parts.replicas);
  report.Add("partitions", "Partitions", Show::kCount, fleet.topology()->partitions());
  report.Add("moving_partitions", "Moving", Show::kCount, filling);
  report.Add("moving_bytes", "Bytes to move", Show::kBytes, sum.moving_bytes_left());
  report.Add("hot_chunks", "Hot chunks", Show::kCount, parts.hot.size());
  report.Add("chunks", "Chunks, replicas too", Show::kCount, sum.chunks());
  report.Add("memory_bytes", "Memory", Show::kBytes, sum.memory_bytes());
  report.Add("memory_budget_bytes", "  of", Show::kBytes, sum.memory_budget_bytes());
  report.Add("disk_bytes", "Disk", Show::kBytes, sum.disk_bytes());
  report.Add("disk_budget_bytes", "  of", Show::kBytes, sum.disk_budget_bytes());
  report.Add("sent_bytes_per_second", "Sending", Show::kRate, sum.sent_bytes_per_second());
  report.Add("received_bytes_per_second", "Receiving", Show::kRate, sum.received_bytes_per_second());
  Table& states = report.AddTable("nodes_by_state", "Nodes", {{"state", "STATE"}, {"nodes", "NODES", Show::kCount}});
  for (const auto& [state, count] : by_state) states.Add({state, count});
  context.Print(report);
  return ExitCode::kDone;
}

}  // namespace

Runner DeclareStatus(CLI::App&) {
  return [](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
    const bool whole_cluster = fleet->is_cluster() && context.flags().node.empty();
    return whole_cluster ? PrintCluster(context, *fleet) : PrintNode(context, *fleet->nodes().front());
  };
}

}  // namespace kdn::ctl
