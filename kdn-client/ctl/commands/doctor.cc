// kdnctl doctor: checks a deployment, and says what to mend.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <utility>

#include "kdn-client/ctl/checks.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

ExaminedPlacement AskPlacement(Context& context, const std::string& address) {
  ExaminedPlacement examined = {.address = address, .status = absl::OkStatus()};
  const absl::StatusOr<std::shared_ptr<PlacementChannel>> channel = PlacementChannel::Open({address});
  v1::TopologyUpdate update;
  examined.status =
      channel.ok() ? (*channel)->GetTopology(v1::GetTopologyRequest(), context.Deadline(), update) : channel.status();
  if (!examined.status.ok()) return examined;
  absl::StatusOr<TopologyPtr> topology = ApplyUpdate(nullptr, update);
  examined.status = topology.status();
  if (topology.ok()) examined.topology = *std::move(topology);
  return examined;
}

void AskNodes(Context& context, Fleet& fleet, Examined& examined) {
  for (const auto& node : fleet.nodes()) {
    examined.nodes.push_back({.name = node->name, .up = node->up, .status = absl::OkStatus()});
  }
  fleet.ForEachNode([&](size_t i, FleetNode& node) {
    ExaminedNode& of_node = examined.nodes[i];
    // The connection is made first, so that it does not count as the clock's fault.
    of_node.status = node.admin().Stats(context.Deadline(), of_node.stats);
    if (!of_node.status.ok()) return;
    of_node.asked = RealNow();
    of_node.status = node.admin().Inspect(context.Deadline(), of_node.said);
    of_node.answered = RealNow();
  });
}

absl::StatusOr<Examined> ExamineAll(Context& context) {
  Examined examined = {.version = KDN_VERSION};
  for (const std::string& address : context.flags().placement) {
    examined.placements.push_back(AskPlacement(context, address));
  }
  const bool none = std::ranges::none_of(examined.placements, [](const auto& p) { return p.status.ok(); });
  if (!examined.placements.empty() && none) return examined;  // without a topology no node is known
  // Before the nodes: whoever is behind an epoch from before it was asked is behind.
  for (const ExaminedPlacement& placement : examined.placements) {
    if (placement.topology != nullptr) examined.epoch = std::max(examined.epoch, placement.topology->epoch());
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  AskNodes(context, *fleet, examined);
  return examined;
}

}  // namespace

Runner DeclareDoctor(CLI::App& app) {
  struct Flags {
    bool strict = false;
    bool all = false;
  };
  auto flags = std::make_shared<Flags>();
  app.add_flag("--strict", flags->strict, "Warnings count as problems");
  app.add_flag("--all", flags->all, "Print what is fine as well (JSON always has it)");
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const Examined examined, ExamineAll(context));
    const std::vector<Finding> findings = FindingsOf(examined);
    size_t counts[3] = {};
    Report report;
    std::vector<std::vector<Json>> rows;
    for (const Finding& finding : findings) {
      ++counts[static_cast<size_t>(finding.severity)];
      const bool shown = finding.severity != Severity::kFine || flags->all || context.format() == Format::kJson;
      if (!shown) continue;
      rows.push_back({SeverityName(finding.severity), finding.check, finding.subject, finding.what,
                      finding.mend.empty() ? Json() : Json(finding.mend)});
    }
    report.Add("ok", "Fine", Show::kCount, counts[0]);
    report.Add("warnings", "Warnings", Show::kCount, counts[1]);
    report.Add("problems", "Problems", Show::kCount, counts[2]);
    Table& table = report.AddTable(
        "findings", "",
        {{"severity", "SEVERITY"}, {"check", "CHECK"}, {"subject", "SUBJECT"}, {"what", "WHAT"}, {"mend", "MEND"}});
    for (std::vector<Json>& row : rows) table.Add(std::move(row));
    context.Print(report);
    const bool healthy = counts[2] == 0 && (counts[1] == 0 || !flags->strict);
    return healthy ? ExitCode::kDone : ExitCode::kProblems;
  };
}

}  // namespace kdn::ctl
