// kdnctl delete, clear: chunks are erased, pinned or not.
#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/progress.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

// A node that was cleared may get a chunk back from one that was not yet; after a few rounds none has any left.
constexpr int kMostRounds = 5;

absl::StatusOr<ExitCode> Delete(Context& context, const ChunkFlags& flags) {
  KDN_ASSIGN_OR_RETURN(const ChunkInput input, ReadChunks(context, flags));
  const std::vector<ChunkKey> keys = input.Keys();
  if (keys.empty()) return InvalidArgument("no chunks are named; a document shorter than a chunk has none");
  KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, keys));
  const auto by_space = BySpace(sightings);
  size_t held = 0;
  for (const auto& [space, of_space] : by_space) held += of_space.size();
  if (held == 0) return NotFound("none of the {} chunks is held", keys.size());
  KDN_RETURN_IF_ERROR(context.Confirm(fmt::format("erase {} chunks", held)));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<Transport> transport, fleet->transport());
  size_t erased = 0;
  size_t failed = 0;
  absl::Status last;
  for (const auto& [space, of_space] : by_space) {
    KDN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses,
                         transport->Delete(space, of_space, context.Deadline()));
    for (const absl::Status& status : statuses) {
      if (status.ok() || absl::IsNotFound(status)) {
        ++erased;
      } else {
        ++failed;
        last = status;
      }
    }
  }
  Report report;
  report.Add("erased", "Erased", Show::kCount, erased);
  report.Add("missing", "Not held", Show::kCount, keys.size() - held);
  report.Add("failed", failed == 0 ? "" : "Failed", Show::kCount, failed);
  if (failed > 0) report.Note("not erased: " + MessageOf(last));
  context.Print(report);
  if (failed == 0) return ExitCode::kDone;
  return erased > 0 ? ExitCode::kPartly : ExitCodeOf(last);
}

// All nodes that are up, at once. Returns how many chunks went in this round.
uint64_t ClearOnce(Context& context, Fleet& fleet, const v1::ClearRequest& request,
                   std::vector<v1::ClearProgress>& sums, std::map<std::string, absl::Status>& failures) {
  Progress progress(context.terminal(), "clear");
  Mutex mu;
  std::vector<v1::ClearProgress> now(fleet.nodes().size());
  fleet.ForEachNode([&](size_t i, FleetNode& node) {
    const absl::Status status = node.admin().Clear(request, [&](const v1::ClearProgress& latest) {
      MutexLock lock(mu);
      now[i] = latest;
      uint64_t done = 0;
      uint64_t total = 0;
      for (const v1::ClearProgress& one : now) {
        done += one.cleared() + one.failed();
        total += one.total();
      }
      progress.Update(done, total, node.name);
      return true;
    });
    MutexLock lock(mu);
    if (!status.ok()) {
      failures[node.name] = status;
    } else if (!now[i].done()) {
      failures[node.name] = DataLoss("node {}: it ended before it was done; run the command again", node.name);
    }
  });
  uint64_t cleared = 0;
  for (size_t i = 0; i < now.size(); ++i) {
    cleared += now[i].cleared();
    sums[i].set_cleared(sums[i].cleared() + now[i].cleared());
    sums[i].set_cleared_bytes(sums[i].cleared_bytes() + now[i].cleared_bytes());
    sums[i].set_failed(now[i].failed());
    sums[i].set_failure(now[i].failure());
  }
  return cleared;
}

absl::StatusOr<ExitCode> Clear(Context& context, const std::string& space_text, const std::string& under) {
  KDN_ASSIGN_OR_RETURN(const NamedSpace space, FindSpace(context, space_text));
  v1::ClearRequest request;
  request.set_space_id(std::string(AsStringView(space.id.span())));
  if (!under.empty()) {
    const absl::StatusOr<ChunkKey> key = ChunkKey::FromHex(under);
    if (!key.ok()) return Annotate(key.status(), "--under");
    request.set_under_key(std::string(AsStringView(key->span())));
  }
  KDN_ASSIGN_OR_RETURN(const SpaceList list, ListSpaces(context));
  const auto held = list.spaces.find(space.id);
  if (held == list.spaces.end()) {
    if (list.unreachable.empty()) return NotFound("space {}: nothing is held for it", space.id.ToHex());
    return Unavailable("space {}: nothing is held for it by the nodes that answered; {}", space.id.ToHex(),
                       list.unreachable.front());
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  const std::string what = under.empty() ? fmt::format("all {} chunks ({})", held->second.chunks(),
                                                       ToText(Show::kBytes, held->second.encoded_bytes()))
                                         : fmt::format("chunk {} and all after it", under.substr(0, 12));
  KDN_RETURN_IF_ERROR(context.Confirm(
      fmt::format("erase {} of space {} on {} nodes", what, space.id.ToShortHex(), list.nodes.at(space.id))));
  std::vector<v1::ClearProgress> sums(fleet->nodes().size());
  std::map<std::string, absl::Status> failures;
  for (int round = 0; round < kMostRounds; ++round) {
    failures.clear();
    if (ClearOnce(context, *fleet, request, sums, failures) == 0 || !fleet->is_cluster()) break;
  }
  for (const auto& node : fleet->nodes()) {
    if (!node->up)
      failures[node->name] =
          Unavailable("node {} is down; what it holds may come back with it, so clear again then", node->name);
  }
  Report report;
  report.Add("space", "Space", Show::kText, space.id.ToHex());
  Table& table = report.AddTable("nodes", "",
                                 {{"node", "NODE"},
                                  {"cleared", "CLEARED", Show::kCount},
                                  {"cleared_bytes", "BYTES", Show::kBytes},
                                  {"failed", "FAILED", Show::kCount},
                                  {"detail", "DETAIL"}});
  uint64_t cleared = 0;
  uint64_t failed = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    const std::string& name = fleet->nodes()[i]->name;
    const auto failure = failures.find(name);
    const std::string detail = failure != failures.end() ? MessageOf(failure->second) : sums[i].failure();
    table.Add(
        {name, sums[i].cleared(), sums[i].cleared_bytes(), sums[i].failed(), detail.empty() ? Json() : Json(detail)});
    cleared += sums[i].cleared();
    failed += sums[i].failed();
  }
  report.Add("cleared", "Cleared", Show::kCount, cleared);
  context.Print(report);
  if (failures.empty() && failed == 0) {
    if (cleared > 0 || under.empty()) return ExitCode::kDone;
    return NotFound("chunk {}: neither it nor anything after it is held for space {}", under, space.id.ToShortHex());
  }
  if (cleared > 0) return ExitCode::kPartly;
  return failures.empty() ? ExitCode::kFailed : ExitCodeOf(failures.begin()->second);
}

}  // namespace

Runner DeclareDelete(CLI::App& app) {
  auto flags = std::make_shared<ChunkFlags>();
  DeclareChunkFlags(app, *flags, "Chunks to erase");
  return [flags](Context& context) { return Delete(context, *flags); };
}

Runner DeclareClear(CLI::App& app) {
  struct Flags {
    std::string space;
    std::string under;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("--space", flags->space, "The space: its id, or its first digits")->required()->type_name("SPACE");
  app.add_option("--under", flags->under, "Only this chunk and what comes after it in its chain")->type_name("KEY");
  return [flags](Context& context) { return Clear(context, flags->space, flags->under); };
}

}  // namespace kdn::ctl
