// kdnctl pin, unpin: leases that keep chunks from being evicted.
//
// A lease is a node's. For a chunk that several nodes hold, each of them gives one; a lease is named NODE=NUMBER.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "storage/base/clock.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

absl::StatusOr<ExitCode> Pin(Context& context, const ChunkFlags& flags, const std::string& duration_text) {
  KDN_ASSIGN_OR_RETURN(const absl::Duration duration, DurationFlag("--for", duration_text, /*zero_is_fine=*/false));
  KDN_ASSIGN_OR_RETURN(const ChunkInput input, ReadChunks(context, flags));
  const std::vector<ChunkKey> keys = input.Keys();
  KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, keys));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  std::map<std::pair<size_t, SpaceId>, std::vector<ChunkKey>> to_pin;
  size_t missing = 0;
  for (const KeySightings& of_key : sightings.keys) {
    if (of_key.best() == nullptr) ++missing;
    for (const Sighting& sighting : of_key.by_node) {
      if (!sighting.said.has_held()) continue;
      KDN_ASSIGN_OR_RETURN(const SpaceId space, SpaceId::FromBytes(AsBytes(sighting.said.held().space_id())));
      to_pin[{sighting.node, space}].push_back(of_key.key);
    }
  }
  if (to_pin.empty()) {
    return NotFound("none of the {} chunks is held; `kdnctl lookup` says which are", keys.size());
  }
  Report report;
  report.Add("chunks", "Chunks", Show::kCount, keys.size() - missing);
  report.Add("missing", missing == 0 ? "" : "Missing", Show::kCount, missing);
  Table& table = report.AddTable("leases", "",
                                 {{"lease", "LEASE"},
                                  {"node", "", Show::kText},
                                  {"pinned", "PINNED", Show::kCount},
                                  {"expires_in_seconds", "EXPIRES IN", Show::kSeconds}});
  bool failed = false;
  for (const auto& [where, all] : to_pin) {
    FleetNode& node = *fleet->nodes()[where.first];
    for (size_t first = 0; first < all.size(); first += kMaxChunksPerCall) {
      const auto batch = std::span(all).subspan(first, std::min(kMaxChunksPerCall, all.size() - first));
      const absl::StatusOr<Lease> lease = node.transport()->Pin(where.second, batch, duration, context.Deadline());
      if (!lease.ok()) {
        failed = true;
        report.Note(fmt::format("node {}: {}", node.name, MessageOf(lease.status())));
        continue;
      }
      table.Add({fmt::format("{}={}", node.name, lease->id), node.name, lease->pinned,
                 absl::ToDoubleSeconds(lease->expires - RealNow())});
    }
  }
  report.Note("`kdnctl unpin LEASE` ends one early; a node grants at most its --max-pin.");
  context.Print(report);
  return failed || missing > 0 ? ExitCode::kPartly : ExitCode::kDone;
}

absl::StatusOr<ExitCode> Unpin(Context& context, const std::vector<std::string>& leases) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  Report report;
  Table& table = report.AddTable("leases", "", {{"lease", "LEASE"}, {"ended", "ENDED"}, {"detail", "DETAIL"}});
  size_t ended = 0;
  absl::Status last;
  for (const std::string& text : leases) {
    const size_t equals = text.rfind('=');
    const std::string name = equals == std::string::npos ? "" : text.substr(0, equals);
    const std::string number = text.substr(equals == std::string::npos ? 0 : equals + 1);
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), id);
    if (error != std::errc() || end != number.data() + number.size()) {
      return InvalidArgument("lease '{}': it is not NODE=NUMBER, as kdnctl pin prints it", text);
    }
    const auto node =
        std::ranges::find_if(fleet->nodes(), [&](const auto& n) { return name.empty() || n->name == name; });
    if (node == fleet->nodes().end() || (name.empty() && fleet->nodes().size() > 1)) {
      return InvalidArgument("lease '{}': {}", text,
                             name.empty() ? "the node is missing; write NODE=NUMBER, as kdnctl pin prints it"
                                          : "there is no such node; give the same --node or --placement as for pin");
    }
    const absl::Status status = (*node)->transport()->Unpin(id, context.Deadline());
    if (status.ok()) {
      ++ended;
    } else {
      last = status;
    }
    table.Add({text, status.ok(), status.ok() ? Json() : Json(MessageOf(status))});
  }
  context.Print(report);
  if (ended == leases.size()) return ExitCode::kDone;
  return ended > 0 ? ExitCode::kPartly : ExitCodeOf(last);
}

}  // namespace

Runner DeclarePin(CLI::App& app) {
  struct Flags {
    ChunkFlags chunks;
    std::string duration = "10m";
  };
  auto flags = std::make_shared<Flags>();
  DeclareChunkFlags(app, flags->chunks, "Chunks to pin");
  app.add_option("--for", flags->duration, "How long; nodes may grant less")
      ->type_name("DURATION")
      ->capture_default_str();
  return [flags](Context& context) { return Pin(context, flags->chunks, flags->duration); };
}

Runner DeclareUnpin(CLI::App& app) {
  auto leases = std::make_shared<std::vector<std::string>>();
  app.add_option("LEASE", *leases, "As kdnctl pin printed them: NODE=NUMBER")->required()->type_name("");
  return [leases](Context& context) { return Unpin(context, *leases); };
}

}  // namespace kdn::ctl
