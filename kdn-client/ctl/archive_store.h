// Between archives and nodes: chunks of an archive to a node or cluster, and back.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_ARCHIVE_STORE_H_
#define KDN_KDN_CLIENT_CTL_ARCHIVE_STORE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/ctl/archive.h"
#include "kdn-client/ctl/context.h"
#include "storage/chunk.h"

namespace kdn::ctl {

struct StoreArchiveOptions {
  std::string path;
  Ack ack = Ack::kMemory;
  bool skip_held = true;                             // what is held already is not sent
  std::optional<absl::Duration> ttl = std::nullopt;  // instead of what the archive says
  bool verify_first = true;                          // read the archive to its end before anything is stored
};

struct StoreArchiveResult {
  ArchiveTotals read;
  uint64_t stored = 0;
  uint64_t stored_bytes = 0;
  uint64_t held_already = 0;
  uint64_t expired = 0;
  uint64_t failed = 0;
  absl::Status last_failure;
};
// Errors are those of the archive, and of a node that cannot be reached; chunks that a node refuses are counted.
absl::StatusOr<StoreArchiveResult> StoreArchive(Context& context, const StoreArchiveOptions& options);

// A chunk to fetch, with what its manifest does not say.
struct WantedChunk {
  size_t node = 0;  // in Fleet::nodes(), which holds it
  SpaceId space;
  ChunkKey key;
  uint64_t encoded_bytes = 0;
  Retention retention = {};
};
struct FetchArchiveResult {
  uint64_t missing = 0;  // gone meanwhile, or not delivered
  absl::Status last_failure;
};
// Errors are those of the file; chunks that do not come are counted. Sorts `wanted`.
absl::StatusOr<FetchArchiveResult> FetchToArchive(Context& context, std::vector<WantedChunk>& wanted,
                                                  ArchiveWriter& archive);

// INVALID_ARGUMENT: there is something at `path`, and it is not to be overwritten.
absl::Status CheckOutput(const std::string& path, bool overwrite);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_ARCHIVE_STORE_H_
