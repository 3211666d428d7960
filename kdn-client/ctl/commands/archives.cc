// kdnctl get, put, export, import: chunks between nodes and archives.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "kdn-client/ctl/archive_store.h"
#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/progress.h"
#include "storage/base/clock.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

absl::StatusOr<WantedChunk> WantedOf(size_t node, const v1::HeldChunk& held) {
  WantedChunk wanted;
  wanted.node = node;
  KDN_ASSIGN_OR_RETURN(wanted.space, SpaceId::FromBytes(AsBytes(held.space_id())));
  KDN_ASSIGN_OR_RETURN(wanted.key, ChunkKey::FromBytes(AsBytes(held.key())));
  wanted.encoded_bytes = held.encoded_bytes();
  wanted.retention.lossy_allowed = held.lossy_allowed();
  if (held.ttl_ms() > 0) wanted.retention.expires = RealNow() + absl::Milliseconds(static_cast<int64_t>(held.ttl_ms()));
  return wanted;
}

void AddArchive(const std::string& path, const ArchiveTotals& totals, Report& report) {
  report.Add("file", "File", Show::kText, path);
  report.Add("chunks", "Chunks", Show::kCount, totals.chunks);
  report.Add("encoded_bytes", "Bytes", Show::kBytes, totals.slab_bytes);
}

absl::StatusOr<ExitCode> Get(Context& context, const std::vector<std::string>& arguments, const std::string& path,
                             bool overwrite) {
  KDN_ASSIGN_OR_RETURN(const std::vector<ChunkKey> keys, ReadKeys(arguments, context.terminal().in));
  if (keys.empty()) return InvalidArgument("no keys; name chunks by KEY");
  KDN_RETURN_IF_ERROR(CheckOutput(path, overwrite));
  KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, keys));
  std::vector<WantedChunk> wanted;
  Json missing = Json::array();
  for (const KeySightings& of_key : sightings.keys) {
    const v1::HeldChunk* const best = of_key.best();
    if (best == nullptr) {
      missing.push_back(of_key.key.ToHex());
      continue;
    }
    const auto holder = std::ranges::find_if(of_key.by_node, [&](const Sighting& s) { return &s.said.held() == best; });
    KDN_ASSIGN_OR_RETURN(WantedChunk chunk, WantedOf(holder->node, *best));
    wanted.push_back(chunk);
  }
  if (wanted.empty()) {
    return NotFound("none of the {} chunks is held; `kdnctl why {}` says more", keys.size(), keys.front().ToHex());
  }
  KDN_ASSIGN_OR_RETURN(const auto archive, ArchiveWriter::Create(path));
  KDN_ASSIGN_OR_RETURN(const FetchArchiveResult fetched, FetchToArchive(context, wanted, *archive));
  if (archive->totals().chunks == 0) return fetched.last_failure;
  KDN_RETURN_IF_ERROR(archive->Finish());
  Report report;
  AddArchive(path, archive->totals(), report);
  report.Add("missing", missing.empty() ? "" : "Missing", Show::kText, missing);
  report.Add("not_delivered", "", Show::kCount, fetched.missing);
  if (fetched.missing > 0) report.Note("not delivered: " + MessageOf(fetched.last_failure));
  context.Print(report);
  return missing.empty() && fetched.missing == 0 ? ExitCode::kDone : ExitCode::kPartly;
}

absl::StatusOr<ExitCode> Export(Context& context, const std::string& path, const std::string& space_text,
                                const std::string& under, bool overwrite) {
  KDN_RETURN_IF_ERROR(CheckOutput(path, overwrite));
  v1::ListHeldChunksRequest request;
  if (!space_text.empty()) {
    KDN_ASSIGN_OR_RETURN(const NamedSpace space, FindSpace(context, space_text));
    request.set_space_id(std::string(AsStringView(space.id.span())));
  }
  if (!under.empty()) {
    const absl::StatusOr<ChunkKey> key = ChunkKey::FromHex(under);
    if (!key.ok()) return Annotate(key.status(), "--under");
    request.set_under_key(std::string(AsStringView(key->span())));
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  // Of the copies of a chunk the most exact one is taken.
  struct Candidate {
    WantedChunk chunk;
    v1::Fidelity fidelity;
  };
  absl::flat_hash_map<ChunkKey, Candidate> found;
  std::vector<std::string> not_asked;
  {
    Progress progress(context.terminal(), "list");
    for (size_t i = 0; i < fleet->nodes().size(); ++i) {
      FleetNode& node = *fleet->nodes()[i];
      absl::Status bad;
      absl::Status listed = node.up ? absl::OkStatus() : Unavailable("node {} is down", node.name);
      if (node.up) {
        listed = node.admin().ListHeldChunks(request, [&](const v1::HeldChunksPage& page) {
          for (const v1::HeldChunk& held : page.chunks()) {
            const absl::StatusOr<WantedChunk> wanted = WantedOf(i, held);
            if (!wanted.ok()) {
              bad = Annotate(wanted.status(), "node " + node.name);
              return false;
            }
            const auto [at, is_new] = found.try_emplace(wanted->key, Candidate{*wanted, held.fidelity()});
            if (!is_new && at->second.fidelity < held.fidelity()) at->second = {*wanted, held.fidelity()};
          }
          progress.Update(found.size(), 0, "chunks");
          return true;
        });
      }
      KDN_RETURN_IF_ERROR(bad);
      if (listed.ok()) continue;
      if (!fleet->is_cluster()) return listed;
      not_asked.push_back(MessageOf(listed));
    }
  }
  if (found.empty()) {
    return NotFound("there is nothing to export{}", not_asked.empty() ? "" : "; " + not_asked.front());
  }
  std::vector<WantedChunk> wanted;
  wanted.reserve(found.size());
  for (const auto& [key, candidate] : found) wanted.push_back(candidate.chunk);
  KDN_ASSIGN_OR_RETURN(const auto archive, ArchiveWriter::Create(path));
  KDN_ASSIGN_OR_RETURN(const FetchArchiveResult fetched, FetchToArchive(context, wanted, *archive));
  if (archive->totals().chunks == 0) return fetched.last_failure;
  KDN_RETURN_IF_ERROR(archive->Finish());
  Report report;
  AddArchive(path, archive->totals(), report);
  report.Add("not_delivered", fetched.missing == 0 ? "" : "Gone meanwhile", Show::kCount, fetched.missing);
  report.Add("not_asked", "", Show::kText, not_asked);
  for (const std::string& why : not_asked) report.Note("not asked: " + why);
  if (fetched.missing > 0) report.Note("not delivered: " + MessageOf(fetched.last_failure));
  context.Print(report);
  return not_asked.empty() && fetched.missing == 0 ? ExitCode::kDone : ExitCode::kPartly;
}

absl::StatusOr<ExitCode> StoreAndPrint(Context& context, const StoreArchiveOptions& options) {
  KDN_ASSIGN_OR_RETURN(const StoreArchiveResult result, StoreArchive(context, options));
  Report report;
  AddArchive(options.path, result.read, report);
  report.Add("stored", "Stored", Show::kCount, result.stored);
  report.Add("stored_bytes", "Bytes stored", Show::kBytes, result.stored_bytes);
  report.Add("held_already", "Held already", Show::kCount, result.held_already);
  report.Add("expired", "Expired", Show::kCount, result.expired);
  report.Add("failed", "Failed", Show::kCount, result.failed);
  if (result.failed > 0) report.Note("not stored: " + MessageOf(result.last_failure));
  context.Print(report);
  if (result.failed == 0) return ExitCode::kDone;
  return result.stored + result.held_already > 0 ? ExitCode::kPartly : ExitCode::kFailed;
}

struct StoreFlags {
  std::string path;
  std::string ack = "memory";
  std::string ttl;
};
void DeclareStore(CLI::App& app, StoreFlags& flags) {
  app.add_option("FILE", flags.path, "An archive that kdnctl get or export made")->required()->type_name("");
  app.add_option("--ack", flags.ack, "What an acknowledgement means: memory, or durable (survives a crash)")
      ->type_name("ACK")
      ->capture_default_str();
  app.add_option("--ttl", flags.ttl, "How long the chunks may be delivered; unless given, as the archive says")
      ->type_name("DURATION");
}
absl::StatusOr<StoreArchiveOptions> OptionsOf(const StoreFlags& flags) {
  StoreArchiveOptions options = {.path = flags.path};
  if (flags.ack != "memory" && flags.ack != "durable") {
    return InvalidArgument("--ack: '{}' is not memory or durable", flags.ack);
  }
  options.ack = flags.ack == "durable" ? Ack::kDurable : Ack::kMemory;
  if (!flags.ttl.empty()) {
    KDN_ASSIGN_OR_RETURN(options.ttl, DurationFlag("--ttl", flags.ttl, /*zero_is_fine=*/false));
  }
  return options;
}

}  // namespace

Runner DeclareGet(CLI::App& app) {
  struct Flags {
    std::vector<std::string> keys;
    std::string path;
    bool overwrite = false;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("KEY", flags->keys, "Chunks: 64 hexadecimal digits, @FILE for a file of them, - for standard input")
      ->required()
      ->type_name("");
  app.add_option("-f,--file", flags->path, "The archive to write")->required()->type_name("FILE");
  app.add_flag("--overwrite", flags->overwrite, "Even if there is such a file");
  return [flags](Context& context) { return Get(context, flags->keys, flags->path, flags->overwrite); };
}

Runner DeclarePut(CLI::App& app) {
  auto flags = std::make_shared<StoreFlags>();
  DeclareStore(app, *flags);
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(StoreArchiveOptions options, OptionsOf(*flags));
    options.skip_held = false;
    return StoreAndPrint(context, options);
  };
}

Runner DeclareExport(CLI::App& app) {
  struct Flags {
    std::string path;
    std::string space;
    std::string under;
    bool overwrite = false;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("FILE", flags->path, "The archive to write")->required()->type_name("");
  app.add_option("--space", flags->space, "Only this space's chunks: its id, or its first digits")->type_name("SPACE");
  app.add_option("--under", flags->under, "Only this chunk and what comes after it in its chain")->type_name("KEY");
  app.add_flag("--overwrite", flags->overwrite, "Even if there is such a file");
  return
      [flags](Context& context) { return Export(context, flags->path, flags->space, flags->under, flags->overwrite); };
}

Runner DeclareImport(CLI::App& app) {
  struct Flags {
    StoreFlags store;
    bool no_check = false;
  };
  auto flags = std::make_shared<Flags>();
  DeclareStore(app, flags->store);
  app.add_flag(
      "--no-check", flags->no_check,
      "Store while reading, instead of reading the archive to its end first; what is damaged is refused all the "
      "same, but what stands before it is stored");
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(StoreArchiveOptions options, OptionsOf(flags->store));
    options.verify_first = !flags->no_check;
    return StoreAndPrint(context, options);
  };
}

}  // namespace kdn::ctl
