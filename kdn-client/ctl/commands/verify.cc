// kdnctl verify: reads and checks all that nodes hold.
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <utility>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/progress.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

// One tier of one node.
struct Checked {
  uint32_t level = 0;
  v1::VerifyProgress latest;
};

struct OfNode {
  std::vector<Checked> tiers;
  std::vector<std::pair<uint32_t, v1::DamagedChunk>> damaged;
  absl::Status status;
};

class Verification {
 public:
  Verification(Context& context, Fleet& fleet, std::optional<uint32_t> level)
      : context_(context),
        fleet_(fleet),
        level_(level),
        nodes_(fleet.nodes().size()),
        progress_(context.terminal(), "verify") {}

  void Run() {
    fleet_.ForEachNode([this](size_t i, FleetNode& node) {
      const absl::Status status = VerifyNode(i, node);
      MutexLock lock(mu_);
      nodes_[i].status = status;
    });
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!fleet_.nodes()[i]->up) nodes_[i].status = Unavailable("node {} is down", fleet_.nodes()[i]->name);
    }
    progress_.Clear();
  }

  absl::StatusOr<ExitCode> Print() {
    Report report;
    Table& tiers = report.AddTable("tiers", "",
                                   {{"node", "NODE"},
                                    {"tier", "TIER"},
                                    {"chunks", "CHECKED", Show::kCount},
                                    {"bytes", "BYTES", Show::kBytes},
                                    {"damaged", "DAMAGED", Show::kCount},
                                    {"unreadable", "UNREADABLE", Show::kCount},
                                    {"gone", "GONE", Show::kCount}});
    std::vector<std::vector<Json>> damaged_rows;
    uint64_t problems = 0;
    size_t not_verified = 0;
    absl::Status last;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const std::string& name = fleet_.nodes()[i]->name;
      for (const Checked& tier : nodes_[i].tiers) {
        uint64_t damaged = 0;
        for (const auto& [level, chunk] : nodes_[i].damaged) damaged += level == tier.level ? 1 : 0;
        problems += damaged + tier.latest.unreadable();
        tiers.Add({name, LevelName(tier.level), tier.latest.chunks(), tier.latest.bytes(), damaged,
                   tier.latest.unreadable(), tier.latest.gone()});
      }
      for (const auto& [level, chunk] : nodes_[i].damaged) {
        damaged_rows.push_back({name, LevelName(level), Hex(chunk.key()), chunk.detail()});
      }
      if (nodes_[i].status.ok()) continue;
      ++not_verified;
      last = nodes_[i].status;
      report.Note("not verified: " + MessageOf(last));
    }
    if (not_verified == nodes_.size()) return last.ok() ? NotFound("there is no node to verify") : last;
    Table& damaged = report.AddTable("damaged", "Damaged, and dropped there",
                                     {{"node", "NODE"}, {"tier", "TIER"}, {"key", "KEY"}, {"detail", "WHAT"}});
    for (std::vector<Json>& row : damaged_rows) damaged.Add(std::move(row));
    report.Add("problems", "Problems", Show::kCount, problems);
    if (!damaged_rows.empty())
      report.Note("Other owners of a cluster bring dropped chunks back by themselves; look at the disk's health.");
    context_.Print(report);
    if (problems > 0) return ExitCode::kProblems;
    return not_verified > 0 ? ExitCode::kPartly : ExitCode::kDone;
  }

 private:
  absl::Status VerifyNode(size_t i, FleetNode& node) {
    v1::InspectResponse who;
    KDN_RETURN_IF_ERROR(node.admin().Inspect(context_.Deadline(), who));
    bool any = false;
    for (const v1::TierStatus& tier : who.tiers()) {
      if (level_.has_value() && *level_ != tier.level()) continue;
      any = true;
      KDN_RETURN_IF_ERROR(VerifyTier(i, node, tier.level()));
    }
    return any ? absl::OkStatus() : NotFound("node {} has no tier {}", node.name, LevelName(*level_));
  }

  absl::Status VerifyTier(size_t i, FleetNode& node, uint32_t level) {
    {
      MutexLock lock(mu_);
      nodes_[i].tiers.push_back({.level = level, .latest = {}});
    }
    v1::VerifyRequest request;
    request.set_level(level);
    bool done = false;
    KDN_RETURN_IF_ERROR(node.admin().Verify(request, [&](const v1::VerifyProgress& progress) {
      done = progress.done();
      Take(i, level, progress);
      return true;
    }));
    if (!done) return DataLoss("node {}: it ended before it was done; run the command again", node.name);
    return absl::OkStatus();
  }

  void Take(size_t i, uint32_t level, const v1::VerifyProgress& progress) {
    MutexLock lock(mu_);
    for (const v1::DamagedChunk& chunk : progress.damaged()) nodes_[i].damaged.emplace_back(level, chunk);
    nodes_[i].tiers.back().latest = progress;
    uint64_t done = 0;
    uint64_t total = 0;
    uint64_t bytes = 0;
    for (const OfNode& node : nodes_) {
      for (const Checked& tier : node.tiers) {
        done += tier.latest.chunks() + tier.latest.gone();
        total += tier.latest.total();
        bytes += tier.latest.bytes();
      }
    }
    progress_.Update(done, total, ToText(Show::kBytes, bytes));
  }

  Context& context_;
  Fleet& fleet_;
  const std::optional<uint32_t> level_;
  Mutex mu_;
  std::vector<OfNode> nodes_;  // guarded by mu_ while Run goes on
  Progress progress_;          // as well
};

}  // namespace

Runner DeclareVerify(CLI::App& app) {
  auto tier = std::make_shared<std::string>();
  app.add_option("--tier", *tier, "Only this one: memory, disk, disk-2 ...")->type_name("TIER");
  return [tier](Context& context) -> absl::StatusOr<ExitCode> {
    std::optional<uint32_t> level;
    if (!tier->empty()) {
      constexpr uint32_t kMostTiers = 64;
      for (uint32_t i = 0; i < kMostTiers && !level.has_value(); ++i) {
        if (LevelName(i) == *tier) level = i;
      }
      if (!level.has_value()) return InvalidArgument("--tier: '{}' is not memory, disk, disk-2 ...", *tier);
    }
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
    Verification verification(context, *fleet, level);
    verification.Run();
    return verification.Print();
  };
}

}  // namespace kdn::ctl
