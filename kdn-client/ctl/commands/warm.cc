// kdnctl warm: brings chunks that lie on disks to memory, before anyone asks for them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/progress.h"
#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

// So many are asked for at a time: nodes take a few hundred, and refuse more until these are done.
constexpr size_t kBatchKeys = 128;

// How far a warm of these very keys has come, in a file, so that one that was broken off goes on from there.
class WarmState {
 public:
  WarmState(std::string path, std::span<const ChunkKey> keys) : path_(std::move(path)) {
    std::string all;
    for (const ChunkKey& key : keys) all += AsStringView(key.span());
    name_ = fmt::format("{:016x}-{}", SlabChecksum(AsBytes(all)), keys.size());
  }

  // 0 where there is no state, or that of other keys.
  size_t Load() const {
    if (path_.empty()) return 0;
    std::ifstream file(path_);
    std::string name;
    size_t done = 0;
    if (!(file >> name >> done) || name != name_) return 0;
    return done;
  }

  absl::Status Save(size_t done) const {
    if (path_.empty()) return absl::OkStatus();
    const std::string part = path_ + ".part";
    std::ofstream file(part, std::ios::trunc);
    file << name_ << ' ' << done << '\n';
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(part, path_, error);
    if (!file || error) return Unavailable("--state: {} cannot be written", path_);
    return absl::OkStatus();
  }

  void Remove() const {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove(path_, ignored);
  }

 private:
  const std::string path_;
  std::string name_;
};

struct WarmFlags {
  ChunkFlags chunks;
  std::string state;
  std::string timeout = "1h";
};

struct Wanted {
  SpaceId space;
  ChunkKey key;
};

// Keys with their spaces, in the order given. Keys that nobody holds are counted only, where the space is not known.
absl::StatusOr<std::vector<Wanted>> WantedOf(Context& context, const ChunkInput& input, size_t& not_held) {
  std::vector<Wanted> wanted;
  const std::vector<ChunkKey> keys = input.Keys();
  if (input.space.has_value()) {
    for (const ChunkKey& key : keys) wanted.push_back({input.space->id, key});
    return wanted;
  }
  KDN_ASSIGN_OR_RETURN(const Sightings sightings, FindChunks(context, keys));
  for (const KeySightings& of_key : sightings.keys) {
    const v1::HeldChunk* const held = of_key.best();
    if (held == nullptr) {
      ++not_held;
      continue;
    }
    Wanted& one = wanted.emplace_back();
    one.key = of_key.key;
    KDN_ASSIGN_OR_RETURN(one.space, SpaceId::FromBytes(AsBytes(held->space_id())));
  }
  return wanted;
}

class Warming {
 public:
  Warming(Context& context, Transport& transport, absl::Time until)
      : context_(context), transport_(transport), until_(until) {}

  // Returns once all of `keys` are in memory or not to be had.
  absl::Status Bring(const SpaceId& space, std::span<const ChunkKey> keys) {
    Backoff backoff(absl::Milliseconds(5), absl::Milliseconds(500), std::random_device()());
    bool first = true;
    while (true) {
      KDN_ASSIGN_OR_RETURN(const PrefetchCounts counts, transport_.Prefetch(space, keys, context_.Deadline()));
      if (first) were_in_memory_ += counts.in_memory;
      first = false;
      if (counts.coming + counts.refused == 0) {
        in_memory_ += counts.in_memory;
        not_held_ += counts.not_held;
        return absl::OkStatus();
      }
      if (RealNow() >= until_) {
        return DeadlineExceeded(
            "{} chunks of a batch are still not in memory; is its budget large enough? Run the same "
            "command again to go on, or raise --timeout",
            counts.coming + counts.refused);
      }
      std::this_thread::sleep_for(absl::ToChronoNanoseconds(backoff.Next()));
    }
  }

  uint64_t in_memory() const { return in_memory_; }
  uint64_t were_in_memory() const { return were_in_memory_; }
  uint64_t not_held() const { return not_held_; }

 private:
  Context& context_;
  Transport& transport_;
  const absl::Time until_;
  uint64_t in_memory_ = 0;
  uint64_t were_in_memory_ = 0;
  uint64_t not_held_ = 0;
};

absl::StatusOr<ExitCode> Warm(Context& context, const WarmFlags& flags) {
  KDN_ASSIGN_OR_RETURN(const absl::Duration timeout, DurationFlag("--timeout", flags.timeout, /*zero_is_fine=*/false));
  KDN_ASSIGN_OR_RETURN(const ChunkInput input, ReadChunks(context, flags.chunks));
  size_t unknown = 0;
  KDN_ASSIGN_OR_RETURN(const std::vector<Wanted> wanted, WantedOf(context, input, unknown));
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<Transport> transport, fleet->transport());
  const std::vector<ChunkKey> keys = input.Keys();
  const WarmState state(flags.state, keys);
  const size_t resumed = std::min(state.Load(), wanted.size());
  Warming warming(context, *transport, RealNow() + timeout);
  {
    Progress progress(context.terminal(), "warm");
    for (size_t at = resumed; at < wanted.size();) {
      std::vector<ChunkKey> batch;
      const size_t first = at;
      for (; at < wanted.size() && batch.size() < kBatchKeys && wanted[at].space == wanted[first].space; ++at) {
        batch.push_back(wanted[at].key);
      }
      KDN_RETURN_IF_ERROR(warming.Bring(wanted[first].space, batch));
      KDN_RETURN_IF_ERROR(state.Save(at));
      progress.Update(at, wanted.size(), "chunks");
    }
  }
  state.Remove();
  Report report;
  report.Add("chunks", "Chunks", Show::kCount, keys.size());
  report.Add("documents", "Documents", Show::kCount, input.documents.size());
  report.Add("resumed_at", resumed == 0 ? "" : "Resumed at", Show::kCount, resumed);
  report.Add("in_memory", "In memory", Show::kCount, warming.in_memory());
  report.Add("were_in_memory", "  before", Show::kCount, warming.were_in_memory());
  report.Add("not_held", "Not held", Show::kCount, warming.not_held() + unknown);
  context.Print(report);
  return warming.not_held() + unknown == 0 ? ExitCode::kDone : ExitCode::kPartly;
}

}  // namespace

Runner DeclareWarm(CLI::App& app) {
  auto flags = std::make_shared<WarmFlags>();
  DeclareChunkFlags(app, flags->chunks, "Chunks to bring to memory");
  app.add_option("--state", flags->state, "Where to write how far it is, so that the same command goes on from there")
      ->type_name("FILE");
  app.add_option("--timeout", flags->timeout, "Longest time for all of it")
      ->type_name("DURATION")
      ->capture_default_str();
  return [flags](Context& context) { return Warm(context, *flags); };
}

}  // namespace kdn::ctl
