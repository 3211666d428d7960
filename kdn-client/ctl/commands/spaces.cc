// kdnctl spaces: whose chunks are held, and how much of each tier they take.
#include <CLI/CLI.hpp>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/wire_names.h"
#include "storage/base/status.h"
#include "storage/format/kv_space.h"

namespace kdn::ctl {

Runner DeclareSpaces(CLI::App&) {
  return [](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(const SpaceList list, ListSpaces(context));
    Report report;
    Table& table = report.AddTable("spaces", "",
                                   {{"space", "SPACE", Show::kId},
                                    {"nodes", "NODES", Show::kCount},
                                    {"chunks", "CHUNKS", Show::kCount},
                                    {"segments", "SEGMENTS", Show::kCount},
                                    {"tokens", "TOKENS", Show::kCount},
                                    {"encoded_bytes", "BYTES", Show::kBytes},
                                    {"memory_bytes", "IN MEMORY", Show::kBytes},
                                    {"disk_bytes", "ON DISKS", Show::kBytes},
                                    {"expiring", "EXPIRING", Show::kCount},
                                    {"chunk_tokens", "CHUNK", Show::kCount},
                                    {"layers", "LAYERS", Show::kCount},
                                    {"heads", "HEADS", Show::kCount},
                                    {"dim", "DIM", Show::kCount},
                                    {"dtype", "DTYPE"},
                                    {"raw_bytes_per_token", "", Show::kBytes}});
    uint64_t bytes = 0;
    for (const auto& [id, held] : list.spaces) {
      uint64_t memory = 0;
      uint64_t disk = 0;
      for (const v1::TierShare& share : held.tiers()) (share.level() == 0 ? memory : disk) += share.encoded_bytes();
      const bool known = held.dtype() <= 0xff && IsKnownDType(static_cast<uint8_t>(held.dtype()));
      table.Add({id.ToHex(), list.nodes.at(id), held.chunks(), held.roots(), held.tokens(), held.encoded_bytes(),
                 memory, disk, held.expiring(), held.chunk_tokens(), held.layers(), held.heads(), held.dim(),
                 known ? Json(DTypeName(static_cast<DType>(held.dtype()))) : Json(), held.raw_bytes_per_token()});
      bytes += held.encoded_bytes();
    }
    report.Add("encoded_bytes", "", Show::kBytes, bytes);
    Json missing = Json::array();
    for (const std::string& why : list.unreachable) {
      missing.push_back(why);
      report.Note("not counted: " + why);
    }
    report.Add("not_counted", "", Show::kText, missing);
    context.Print(report);
    return list.unreachable.empty() ? ExitCode::kDone : ExitCode::kPartly;
  };
}

}  // namespace kdn::ctl
