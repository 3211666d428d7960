#include "kdn-client/ctl/archive_store.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <tuple>
#include <utility>

#include "kdn-client/ctl/chunk_io.h"
#include "kdn-client/ctl/progress.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

// What is in memory, and on the wire, at a time.
constexpr uint64_t kBatchBytes = uint64_t{64} << 20;
constexpr size_t kBatchChunks = 256;

class ArchiveUpload {
 public:
  ArchiveUpload(Context& context, Transport& transport, const StoreArchiveOptions& options)
      : context_(context), transport_(transport), options_(options) {}

  absl::Status Add(Chunk chunk) {
    if (options_.ttl.has_value()) chunk.retention.expires = RealNow() + *options_.ttl;
    if (chunk.retention.ExpiredAt(RealNow())) {
      ++result_.expired;
      return absl::OkStatus();
    }
    bytes_ += chunk.manifest->EncodedBytes();
    batch_.push_back(std::move(chunk));
    return batch_.size() == kBatchChunks || bytes_ >= kBatchBytes ? Send() : absl::OkStatus();
  }

  absl::Status Send() {
    if (options_.skip_held) KDN_RETURN_IF_ERROR(DropHeld());
    if (!batch_.empty()) {
      KDN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses,
                           transport_.Store(batch_, options_.ack, context_.Deadline()));
      for (size_t i = 0; i < batch_.size(); ++i) {
        if (statuses[i].ok()) {
          ++result_.stored;
          result_.stored_bytes += batch_[i].manifest->EncodedBytes();
        } else {
          ++result_.failed;
          result_.last_failure = statuses[i];
        }
      }
    }
    batch_.clear();
    bytes_ = 0;
    return absl::OkStatus();
  }

  StoreArchiveResult& result() { return result_; }

 private:
  absl::Status DropHeld() {
    // A less exact copy does not stand for a more exact one.
    std::map<std::pair<SpaceId, Fidelity>, std::vector<size_t>> groups;
    for (size_t i = 0; i < batch_.size(); ++i) {
      groups[{batch_[i].manifest->space, batch_[i].manifest->fidelity}].push_back(i);
    }
    std::vector<bool> held(batch_.size());
    for (const auto& [group, which] : groups) {
      std::vector<ChunkKey> keys;
      for (const size_t i : which) keys.push_back(batch_[i].manifest->key);
      KDN_ASSIGN_OR_RETURN(const std::vector<FoundChunk> found,
                           transport_.Lookup(group.first, keys, group.second, context_.Deadline()));
      for (size_t k = 0; k < which.size(); ++k) {
        // What is found in memory may not be on a disk as well; storing it again tells, and writes what is missing.
        const bool enough = options_.ack == Ack::kMemory || found[k].tier != TierKind::kMemory;
        held[which[k]] = found[k].miss.reason == MissReason::kNone && enough;
      }
    }
    std::vector<Chunk> left;
    for (size_t i = 0; i < batch_.size(); ++i) {
      if (held[i]) {
        ++result_.held_already;
      } else {
        left.push_back(std::move(batch_[i]));
      }
    }
    batch_ = std::move(left);
    return absl::OkStatus();
  }

  Context& context_;
  Transport& transport_;
  const StoreArchiveOptions& options_;
  std::vector<Chunk> batch_;
  uint64_t bytes_ = 0;
  StoreArchiveResult result_;
};

absl::Status ReadThrough(Context& context, const std::string& path) {
  KDN_ASSIGN_OR_RETURN(const auto reader, ArchiveReader::Open(path));
  Progress progress(context.terminal(), "check " + path);
  while (true) {
    KDN_ASSIGN_OR_RETURN(const std::optional<Chunk> chunk, reader->Next());
    if (!chunk.has_value()) return absl::OkStatus();
    progress.Update(reader->bytes_read() >> 10, reader->file_bytes() >> 10, "KiB");
  }
}

}  // namespace

absl::StatusOr<StoreArchiveResult> StoreArchive(Context& context, const StoreArchiveOptions& options) {
  if (options.verify_first) KDN_RETURN_IF_ERROR(ReadThrough(context, options.path));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<Transport> transport, fleet->transport());
  KDN_ASSIGN_OR_RETURN(const auto reader, ArchiveReader::Open(options.path));
  ArchiveUpload upload(context, *transport, options);
  Progress progress(context.terminal(), "store");
  while (true) {
    KDN_ASSIGN_OR_RETURN(std::optional<Chunk> chunk, reader->Next());
    if (!chunk.has_value()) break;
    KDN_RETURN_IF_ERROR(upload.Add(*std::move(chunk)));
    progress.Update(reader->bytes_read() >> 10, reader->file_bytes() >> 10, "KiB");
  }
  KDN_RETURN_IF_ERROR(upload.Send());
  upload.result().read = reader->totals();
  return upload.result();
}

absl::StatusOr<FetchArchiveResult> FetchToArchive(Context& context, std::vector<WantedChunk>& wanted,
                                                  ArchiveWriter& archive) {
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  std::ranges::sort(wanted, [](const WantedChunk& a, const WantedChunk& b) {
    return std::tie(a.node, a.space, a.key) < std::tie(b.node, b.space, b.key);
  });
  FetchArchiveResult result;
  Progress progress(context.terminal(), "fetch");
  for (size_t first = 0; first < wanted.size();) {
    const WantedChunk& leader = wanted[first];
    std::vector<ChunkKey> keys;
    uint64_t bytes = 0;
    size_t end = first;
    for (; end < wanted.size() && keys.size() < kBatchChunks && bytes < kBatchBytes; ++end) {
      if (wanted[end].node != leader.node || wanted[end].space != leader.space) break;
      keys.push_back(wanted[end].key);
      bytes += wanted[end].encoded_bytes;
    }
    FleetNode& node = *fleet->nodes()[leader.node];
    std::vector<absl::StatusOr<Chunk>> chunks = FetchChunks(*node.transport(), leader.space, keys, context.Deadline());
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (!chunks[i].ok()) {
        ++result.missing;
        result.last_failure = chunks[i].status();
        continue;
      }
      chunks[i]->retention = wanted[first + i].retention;
      KDN_RETURN_IF_ERROR(archive.Add(*chunks[i]));
    }
    first = end;
    progress.Update(first, wanted.size(), ToText(Show::kBytes, archive.totals().slab_bytes));
  }
  return result;
}

absl::Status CheckOutput(const std::string& path, bool overwrite) {
  std::error_code ignored;
  if (!overwrite && std::filesystem::exists(path, ignored)) {
    return InvalidArgument("{}: it exists; give another name, or --overwrite", path);
  }
  return absl::OkStatus();
}

}  // namespace kdn::ctl
