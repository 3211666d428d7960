// kdnctl why: where a chunk is, or why it is nowhere; of a document, the chunk at which its prefix ends.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn::ctl {
namespace {

constexpr size_t kMostAncestors = 4096;
constexpr size_t kAskedAtOnce = 256;

// What a node is to a chunk, by the topology.
std::string RoleOf(const Topology* topology, const ChunkKey& key, const std::string& id) {
  if (topology == nullptr) return "alone";
  const NodeInfo* const node = topology->FindNode(id);
  if (node == nullptr) return "none";
  const Partition partition = topology->PartitionOf(key);
  const Move* const move = topology->MoveOf(partition);
  if (move != nullptr && Contains(move->filling, node->slot)) return "filling";
  if (Contains(topology->Owners(partition), node->slot)) return "owner";
  if (move != nullptr && Contains(move->leaving, node->slot)) return "leaving";
  const auto hot = topology->parts().hot.find(key);
  if (hot != topology->parts().hot.end() && Contains(hot->second.extra, node->slot)) return "hot";
  return "none";
}

// The nearest chunk before `held` in its chain that no node holds: lookups from the front stop there.
absl::StatusOr<std::optional<ChunkKey>> MissingAncestor(Context& context, const v1::HeldChunk& held) {
  ChunkKey parent;
  KDN_ASSIGN_OR_RETURN(parent, ChunkKey::FromBytes(AsBytes(held.parent())));
  for (size_t n = 0; !parent.IsZero() && n < kMostAncestors; ++n) {
    KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, {&parent, 1}));
    const v1::HeldChunk* const found = sightings.keys.front().best();
    if (found == nullptr) return parent;
    KDN_ASSIGN_OR_RETURN(parent, ChunkKey::FromBytes(AsBytes(found->parent())));
  }
  return std::nullopt;
}

struct Verdict {
  std::string reason;  // a word for scripts
  std::string text;
};

std::string_view CauseName(v1::Departure::Cause cause) {
  switch (cause) {
    case v1::Departure::CAUSE_EVICTED:
      return "evicted";
    case v1::Departure::CAUSE_EXPIRED:
      return "expired";
    case v1::Departure::CAUSE_DAMAGED:
      return "damaged";
    case v1::Departure::CAUSE_DELETED:
      return "deleted";
    default:
      return "lost";
  }
}

std::string_view MendOf(v1::Departure::Cause cause) {
  switch (cause) {
    case v1::Departure::CAUSE_EVICTED:
      return "a larger budget would have kept it longer (`kdnctl replay` says what that is worth), and so would a pin";
    case v1::Departure::CAUSE_EXPIRED:
      return "whoever stored it gave it a time to live, or --max-ttl of the node did";
    case v1::Departure::CAUSE_DAMAGED:
      return "its bytes failed their checksum: look at the disk's health, and run `kdnctl verify`";
    default:
      return "somebody erased it";
  }
}

// What the node that had it last remembers of how it went.
std::optional<Verdict> LastDeparture(Fleet& fleet, const KeySightings& of_key) {
  const Sighting* latest = nullptr;
  for (const Sighting& sighting : of_key.by_node) {
    if (!sighting.said.has_left()) continue;
    if (latest == nullptr || sighting.said.left().seconds_ago() < latest->said.left().seconds_ago()) latest = &sighting;
  }
  if (latest == nullptr) return std::nullopt;
  const v1::Departure& left = latest->said.left();
  return Verdict{std::string(CauseName(left.why())),
                 fmt::format("node {} had it, and it went {} ago ({}): {}", fleet.nodes()[latest->node]->name,
                             ToText(Show::kSeconds, left.seconds_ago()), CauseName(left.why()), MendOf(left.why()))};
}

// Why nobody who answered holds it.
absl::StatusOr<Verdict> WhyMissing(Context& context, Fleet& fleet, const Sightings& sightings) {
  const ChunkKey& key = sightings.keys.front().key;
  const Topology* const topology = fleet.topology().get();
  for (const auto& [i, why] : sightings.failed) {
    const FleetNode& node = *fleet.nodes()[i];
    const std::string role = RoleOf(topology, key, node.name);
    if (role == "none") continue;
    if (!node.up) {
      return Verdict{"node_down", fmt::format("node {}, which should hold it ({}), is down; bring it back, or `kdnctl "
                                              "forget {}` so that others take over",
                                              node.name, role, node.name)};
    }
    return Verdict{"node_unreachable", fmt::format("node {}, which should hold it ({}), did not answer: {}", node.name,
                                                   role, MessageOf(why))};
  }
  if (std::optional<Verdict> left = LastDeparture(fleet, sightings.keys.front())) return *std::move(left);
  uint64_t lost = 0;
  bool filling = false;
  for (const Sighting& sighting : sightings.keys.front().by_node) {
    FleetNode& node = *fleet.nodes()[sighting.node];
    const std::string role = RoleOf(topology, key, node.name);
    filling = filling || role == "filling";
    if (role == "none") continue;
    v1::InspectResponse who;
    KDN_RETURN_IF_ERROR(node.admin().Inspect(context.Deadline(), who));
    for (const v1::TierStatus& tier : who.tiers()) {
      const v1::TierStats& stats = tier.stats();
      lost += stats.evictions() + stats.expired() + stats.corrupt() + stats.refused();
    }
  }
  if (filling) {
    return Verdict{"filling",
                   "an owner is still being filled from the others, and none of them has it: most likely it "
                   "was never stored"};
  }
  if (lost == 0) {
    return Verdict{
        "never_stored",
        "the nodes that should hold it have let go of nothing by themselves since they started: it was never "
        "stored, was deleted, or was held in memory alone before a restart. Does the engine use the same space "
        "(weights, dtype, tenant, chunk length) as whoever stored it?"};
  }
  return Verdict{"not_held",
                 fmt::format("the nodes that should hold it have evicted, expired, refused or dropped {} chunks "
                             "since they started; it was one of them, or was never stored",
                             lost)};
}

// How far a document is held from its front. The next chunk is the one to explain, or the last when all are held.
struct HeldPrefix {
  const Document* document = nullptr;
  size_t chunks = 0;
  uint64_t tokens = 0;

  const ChunkKey& End() const { return document->chunks[std::min(chunks, document->chunks.size() - 1)].key; }
};

absl::StatusOr<HeldPrefix> FindPrefix(Context& context, const Document& document) {
  if (document.chunks.empty()) {
    return InvalidArgument("{} is shorter than a chunk, and only whole chunks are stored", document.name);
  }
  HeldPrefix prefix = {.document = &document};
  const std::vector<ChunkKey> keys = ChunkInput{.space = {}, .documents = {document}}.Keys();
  for (; prefix.chunks < keys.size(); prefix.chunks += kAskedAtOnce) {
    const auto part = std::span(keys).subspan(prefix.chunks, std::min(kAskedAtOnce, keys.size() - prefix.chunks));
    KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, part));
    const auto missing = std::ranges::find(sightings.keys, nullptr, &KeySightings::best);
    if (missing == sightings.keys.end()) continue;
    prefix.chunks += static_cast<size_t>(missing - sightings.keys.begin());
    break;
  }
  prefix.chunks = std::min(prefix.chunks, keys.size());
  if (prefix.chunks > 0) {
    const ChunkRef& last = document.chunks[prefix.chunks - 1];
    prefix.tokens = last.first_token + last.tokens;
  }
  return prefix;
}

absl::StatusOr<ExitCode> Explain(Context& context, const ChunkFlags& flags) {
  const bool by_tokens = !flags.tokens_file.empty() || !flags.text_files.empty();
  if (by_tokens && !flags.keys.empty()) return InvalidArgument("give a key, or --tokens or --text, not both");
  KDN_ASSIGN_OR_RETURN(const ChunkInput input, ReadChunks(context, flags));
  std::vector<ChunkKey> keys;
  std::optional<HeldPrefix> prefix;
  if (by_tokens) {
    if (input.documents.size() != 1)
      return InvalidArgument("why explains one document; {} were named", input.documents.size());
    KDN_ASSIGN_OR_RETURN(prefix, FindPrefix(context, input.documents.front()));
    keys = {prefix->End()};
  } else {
    keys = input.Keys();
    if (keys.size() != 1) return InvalidArgument("why explains one chunk; {} were named", keys.size());
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, keys));
  const KeySightings& of_key = sightings.keys.front();
  const v1::HeldChunk* const held = of_key.best();
  const Topology* const topology = fleet->topology().get();

  Report report;
  if (prefix.has_value()) {
    report.Add("document", "Document", Show::kText, prefix->document->name);
    report.Add("chunks", "Chunks", Show::kCount, prefix->document->chunks.size());
    report.Add("prefix_chunks", "Held from the front", Show::kCount, prefix->chunks);
    report.Add("prefix_tokens", "Tokens of these", Show::kCount, prefix->tokens);
  }
  report.Add("key", "Key", Show::kText, of_key.key.ToHex());
  report.Add("held", "Held", Show::kText, held != nullptr);
  Verdict verdict = {"held", "it is held, and so is all that comes before it"};
  if (held != nullptr) {
    report.Add("space", "Space", Show::kText, Hex(held->space_id()));
    report.Add("parent", "Parent", Show::kText, Hex(held->parent()));
    report.Add("first_token", "Tokens from", Show::kCount, held->first_token());
    report.Add("tokens", "Tokens", Show::kCount, held->tokens());
    report.Add("encoded_bytes", "Bytes", Show::kBytes, held->encoded_bytes());
    report.Add("raw_bytes", "Bytes decoded", Show::kBytes, held->raw_bytes());
    KDN_ASSIGN_OR_RETURN(const std::optional<ChunkKey> gap, MissingAncestor(context, *held));
    report.Add("missing_ancestor", gap.has_value() ? "Missing before it" : "", Show::kText,
               gap.has_value() ? Json(gap->ToHex()) : Json());
    if (gap.has_value()) {
      verdict = {"orphan",
                 "it is held, but a chunk before it is not: lookups from the front of the segment stop there"};
    } else if (held->fidelity() != v1::FIDELITY_EXACT) {
      verdict = {"not_exact", "it is held, but not exactly: only fetches that accept less get it"};
    }
  } else {
    KDN_ASSIGN_OR_RETURN(verdict, WhyMissing(context, *fleet, sightings));
  }
  report.Add("reason", "Reason", Show::kText, verdict.reason);
  report.Add("explanation", "", Show::kText, verdict.text);
  report.Note(verdict.text);
  if (topology != nullptr) {
    report.Add("epoch", "Epoch", Show::kCount, topology->epoch());
    report.Add("partition", "Partition", Show::kText, topology->PartitionOf(of_key.key));
  }
  Table& nodes = report.AddTable("nodes", "Nodes",
                                 {{"node", "NODE"},
                                  {"role", "ROLE"},
                                  {"held", "HELD"},
                                  {"tiers", "TIERS"},
                                  {"fidelity", "FIDELITY"},
                                  {"codecs", "CODECS"},
                                  {"expires_in_seconds", "EXPIRES IN", Show::kSeconds},
                                  {"pinned", "PINNED"},
                                  {"detail", "WHAT IT SAYS"}});
  for (const Sighting& sighting : of_key.by_node) {
    const std::string& name = fleet->nodes()[sighting.node]->name;
    const std::string role = RoleOf(topology, of_key.key, name);
    if (!sighting.said.has_held()) {
      if (role != "none") nodes.Add({name, role, false, {}, {}, {}, {}, {}, sighting.said.detail()});
      continue;
    }
    const v1::HeldChunk& here = sighting.said.held();
    Json tiers = Json::array();
    Json codecs = Json::array();
    for (const v1::HeldCopy& copy : here.copies()) {
      tiers.push_back(LevelName(copy.level()));
      for (const std::string& codec : copy.codecs()) codecs.push_back(codec);
    }
    nodes.Add({name, role, true, tiers, FidelityName(here.fidelity()), codecs,
               here.ttl_ms() == 0 ? Json() : Json(static_cast<double>(here.ttl_ms()) / 1000), here.pinned(), Json()});
  }
  for (const auto& [i, why] : sightings.failed) {
    const FleetNode& node = *fleet->nodes()[i];
    const std::string role = RoleOf(topology, of_key.key, node.name);
    if (role != "none") nodes.Add({node.name, role, {}, {}, {}, {}, {}, {}, MessageOf(why)});
  }
  report.Add("request_id", "Request", Show::kText, CurrentTrace().RequestId());
  context.Print(report);
  return held != nullptr ? ExitCode::kDone : ExitCode::kNotFound;
}

}  // namespace

Runner DeclareWhy(CLI::App& app) {
  auto flags = std::make_shared<ChunkFlags>();
  DeclareChunkFlags(app, *flags, "The chunk to explain");
  return [flags](Context& context) { return Explain(context, *flags); };
}

}  // namespace kdn::ctl
