// kdnctl lookup: which chunks are held, by key, or from the front of documents.
#include <CLI/CLI.hpp>
#include <memory>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

// By keys alone: every node is asked what it has.
absl::StatusOr<ExitCode> LookUpKeys(Context& context, const std::vector<ChunkKey>& keys) {
  KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, keys));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  Report report;
  Table& table = report.AddTable("chunks", "",
                                 {{"key", "KEY"},
                                  {"held", "HELD"},
                                  {"nodes", "NODES"},
                                  {"tiers", "TIERS"},
                                  {"space", "SPACE", Show::kId},
                                  {"first_token", "FROM", Show::kCount},
                                  {"tokens", "TOKENS", Show::kCount},
                                  {"encoded_bytes", "BYTES", Show::kBytes},
                                  {"fidelity", "FIDELITY"},
                                  {"expires_in_seconds", "EXPIRES IN", Show::kSeconds},
                                  {"pinned", "PINNED"}});
  size_t missing = 0;
  for (const KeySightings& of_key : sightings.keys) {
    const v1::HeldChunk* const held = of_key.best();
    if (held == nullptr) {
      ++missing;
      table.Add({of_key.key.ToHex(), false});
      continue;
    }
    Json nodes = Json::array();
    Json tiers = Json::array();
    bool pinned = false;
    for (const Sighting& sighting : of_key.by_node) {
      if (!sighting.said.has_held()) continue;
      nodes.push_back(fleet->nodes()[sighting.node]->name);
      pinned = pinned || sighting.said.held().pinned();
      if (sighting.said.held().copies_size() > 0) tiers.push_back(LevelName(sighting.said.held().copies(0).level()));
    }
    table.Add({of_key.key.ToHex(), true, nodes, tiers, Hex(held->space_id()), held->first_token(), held->tokens(),
               held->encoded_bytes(), FidelityName(held->fidelity()),
               held->ttl_ms() == 0 ? Json() : Json(static_cast<double>(held->ttl_ms()) / 1000), pinned});
  }
  report.Add("chunks_held", "Held", Show::kCount, keys.size() - missing);
  report.Add("chunks_missing", "Missing", Show::kCount, missing);
  for (const auto& [node, why] : sightings.failed) report.Note("not asked: " + MessageOf(why));
  context.Print(report);
  return missing == 0 ? ExitCode::kDone : ExitCode::kNotFound;
}

// As an engine would ask: how much of each document is held from its front.
absl::StatusOr<ExitCode> LookUpDocuments(Context& context, const ChunkInput& input) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<Transport> transport, fleet->transport());
  Report report;
  report.Add("space", "Space", Show::kText, input.space->id.ToHex());
  report.Add("chunk_tokens", "Tokens a chunk", Show::kCount, input.space->chunk_tokens);
  Table& table = report.AddTable("documents", "",
                                 {{"name", "DOCUMENT"},
                                  {"chunks", "CHUNKS", Show::kCount},
                                  {"prefix_chunks", "PREFIX", Show::kCount},
                                  {"prefix_tokens", "TOKENS", Show::kCount},
                                  {"held_chunks", "HELD", Show::kCount},
                                  {"in_memory", "IN MEMORY", Show::kCount},
                                  {"stopped_by", "STOPPED BY"},
                                  {"stopped_at", "", Show::kId},
                                  {"keys", ""}});
  bool all_held = true;
  for (const Document& document : input.documents) {
    std::vector<ChunkKey> keys;
    for (const ChunkRef& chunk : document.chunks) keys.push_back(chunk.key);
    absl::StatusOr<std::vector<FoundChunk>> found = std::vector<FoundChunk>();
    if (!keys.empty()) found = transport->Lookup(input.space->id, keys, Fidelity::kExact, context.Deadline());
    KDN_RETURN_IF_ERROR(found.status());
    size_t held = 0;
    size_t prefix = 0;
    size_t in_memory = 0;
    Json hex = Json::array();
    for (size_t i = 0; i < found->size(); ++i) {
      hex.push_back(keys[i].ToHex());
      if ((*found)[i].miss.reason != MissReason::kNone) continue;
      if (prefix == i) ++prefix;
      ++held;
      if ((*found)[i].tier == TierKind::kMemory) ++in_memory;
    }
    const bool whole = prefix == keys.size();
    all_held = all_held && whole;
    const uint64_t tokens =
        prefix == 0 ? 0 : document.chunks[prefix - 1].first_token + document.chunks[prefix - 1].tokens;
    table.Add({document.name, keys.size(), prefix, tokens, held, in_memory,
               whole ? Json() : Json(MissReasonName((*found)[prefix].miss.reason)),
               whole ? Json() : Json(keys[prefix].ToHex()), hex});
  }
  context.Print(report);
  return all_held ? ExitCode::kDone : ExitCode::kNotFound;
}

}  // namespace

Runner DeclareLookup(CLI::App& app) {
  auto flags = std::make_shared<ChunkFlags>();
  DeclareChunkFlags(app, *flags, "Chunks to look up");
  return [flags](Context& context) -> absl::StatusOr<ExitCode> {
    const bool by_tokens = !flags->tokens_file.empty() || !flags->text_files.empty();
    if (by_tokens && !flags->keys.empty()) return InvalidArgument("give keys, or --tokens and --text, not both");
    KDN_ASSIGN_OR_RETURN(const ChunkInput input, ReadChunks(context, *flags));
    return by_tokens ? LookUpDocuments(context, input) : LookUpKeys(context, input.Keys());
  };
}

}  // namespace kdn::ctl
