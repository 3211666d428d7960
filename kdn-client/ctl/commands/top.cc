// kdnctl top: what nodes do at this moment, drawn again and again.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"

namespace kdn::ctl {
namespace {

constexpr const char* kHomeAndErase = "\x1b[H\x1b[2J";

// What was counted at one node, at one moment.
struct Sample {
  bool ok = false;
  std::string failure;
  v1::StatsResponse stats;
  SteadyClock::Point taken;
};

// Of all tiers together.
struct Sums {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t read_bytes = 0;
  uint64_t put_bytes = 0;
  uint64_t evictions = 0;
};

Sums SumsOf(const v1::StatsResponse& stats) {
  Sums sums;
  const auto add = [&](const v1::TierStats& tier) {
    sums.read_bytes += tier.read_bytes();
    sums.evictions += tier.evictions();
  };
  add(stats.memory());
  if (stats.has_disk()) add(stats.disk());
  for (const v1::TierStats& disk : stats.cold_disks()) add(disk);
  sums.put_bytes = stats.memory().put_bytes();
  for (const auto& [result, chunks] : stats.fetch_results()) (result == "none" ? sums.hits : sums.misses) += chunks;
  return sums;
}

std::vector<Sample> TakeSamples(Context& context, Fleet& fleet) {
  std::vector<Sample> samples(fleet.nodes().size());
  fleet.ForEachNode([&](size_t i, FleetNode& node) {
    const absl::Status status = node.admin().Stats(context.Deadline(), samples[i].stats);
    samples[i].ok = status.ok();
    samples[i].failure = MessageOf(status);
    samples[i].taken = SteadyClock::Real().Now();
  });
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!fleet.nodes()[i]->up) samples[i].failure = "down";
  }
  return samples;
}

Report ReportOf(Fleet& fleet, const std::vector<Sample>& before, const std::vector<Sample>& now) {
  Report report;
  if (fleet.is_cluster()) {
    report.Add("cluster", "Cluster", Show::kText, fleet.topology()->cluster());
    report.Add("epoch", "Epoch", Show::kCount, fleet.topology()->epoch());
  }
  Table& table = report.AddTable("nodes", "",
                                 {{"node", "NODE"},
                                  {"fetched_per_second", "FETCH/s", Show::kCount},
                                  {"hit_percent", "HITS", Show::kPercent},
                                  {"read_bytes_per_second", "READ", Show::kRate},
                                  {"stored_bytes_per_second", "STORED", Show::kRate},
                                  {"evictions_per_second", "EVICT/s", Show::kCount},
                                  {"memory_bytes", "MEMORY", Show::kBytes},
                                  {"memory_percent", "USED", Show::kPercent},
                                  {"disk_bytes", "DISK", Show::kBytes},
                                  {"disk_percent", "USED", Show::kPercent},
                                  {"pinned_chunks", "PINNED", Show::kCount},
                                  {"write_back_pending_bytes", "TO DISK", Show::kBytes},
                                  {"failure", "FAILURE"}});
  const auto percent = [](double part, double whole) { return whole <= 0 ? Json() : Json(100 * part / whole); };
  for (size_t i = 0; i < now.size(); ++i) {
    const std::string& name = fleet.nodes()[i]->name;
    if (!now[i].ok) {
      std::vector<Json> row(12);
      row[0] = name;
      row.push_back(now[i].failure);
      table.Add(std::move(row));
      continue;
    }
    const v1::StatsResponse& stats = now[i].stats;
    const Sums sums = SumsOf(stats);
    // A node that was restarted counts from 0 again.
    const bool comparable = before[i].ok && before[i].stats.uptime_ms() <= stats.uptime_ms();
    const Sums old = comparable ? SumsOf(before[i].stats) : sums;
    const double seconds = std::max(1e-3, std::chrono::duration<double>(now[i].taken - before[i].taken).count());
    const auto rate = [&](uint64_t a, uint64_t b) {
      return comparable ? Json(static_cast<double>(b - a) / seconds) : Json();
    };
    const auto hits = static_cast<double>(sums.hits - old.hits);
    const auto misses = static_cast<double>(sums.misses - old.misses);
    uint64_t disk = stats.disk().bytes();
    uint64_t disk_budget = stats.disk().budget_bytes();
    for (const v1::TierStats& cold : stats.cold_disks()) {
      disk += cold.bytes();
      disk_budget += cold.budget_bytes();
    }
    table.Add({name, rate(old.hits + old.misses, sums.hits + sums.misses), percent(hits, hits + misses),
               rate(old.read_bytes, sums.read_bytes), rate(old.put_bytes, sums.put_bytes),
               rate(old.evictions, sums.evictions), stats.memory().bytes(),
               percent(static_cast<double>(stats.memory().bytes()), static_cast<double>(stats.memory().budget_bytes())),
               disk, percent(static_cast<double>(disk), static_cast<double>(disk_budget)), stats.pinned_chunks(),
               stats.write_back_pending_bytes(), Json()});
  }
  return report;
}

}  // namespace

Runner DeclareTop(CLI::App& app) {
  struct Flags {
    std::string interval = "1s";
    uint64_t count = 0;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("--interval", flags->interval, "Between two looks")->type_name("DURATION")->capture_default_str();
  app.add_option("--count", flags->count, "End after so many; 0: go on until interrupted")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const absl::Duration interval, DurationFlag("--interval", flags->interval, false));
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
    std::vector<Sample> before = TakeSamples(context, *fleet);
    if (!fleet->is_cluster() && !before.front().ok) {
      return Unavailable("{}", before.front().failure);
    }
    for (uint64_t n = 1;; ++n) {
      std::this_thread::sleep_for(absl::ToChronoNanoseconds(interval));
      std::vector<Sample> now = TakeSamples(context, *fleet);
      const bool draws_over = context.terminal().out_is_terminal && context.format() == Format::kTable;
      if (draws_over) context.terminal().out << kHomeAndErase;
      context.Print(ReportOf(*fleet, before, now));
      context.terminal().out.flush();
      if (n == flags->count) return ExitCode::kDone;
      before = std::move(now);
    }
  };
}

}  // namespace kdn::ctl
