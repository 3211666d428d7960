#include "kdn-node/cluster/load_meter.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "storage/base/clock.h"

namespace kdn {
namespace {

constexpr size_t kMaxHotKeys = 64;

uint64_t PerSecond(uint64_t before, uint64_t now, double seconds) {
  if (seconds <= 0 || now < before) return 0;
  return static_cast<uint64_t>(static_cast<double>(now - before) / seconds);
}

}  // namespace

LoadMeter::LoadMeter(Sources sources, const SteadyClock& clock)
    : sources_(std::move(sources)), clock_(clock), measured_(clock.Now()), before_(sources_.activity()) {}

v1::NodeLoad LoadMeter::Measure() {
  v1::NodeLoad load;
  const StoreStats stats = sources_.store->Stats();
  load.set_memory_bytes(stats.memory.bytes);
  load.set_memory_budget_bytes(stats.memory.budget_bytes);
  uint64_t chunks = stats.memory.chunks;
  uint64_t disk_chunks = 0;
  uint64_t disk_bytes = 0;
  uint64_t disk_budget = 0;
  for (const TierStats& disk : stats.disks) {
    disk_chunks += disk.chunks;
    disk_bytes += disk.bytes;
    disk_budget += disk.budget_bytes;
  }
  // Most of what memory holds is on a disk as well.
  load.set_chunks(std::max(chunks, disk_chunks));
  load.set_disk_bytes(disk_bytes);
  load.set_disk_budget_bytes(disk_budget);
  load.set_held_bytes(stats.memory.bytes + disk_bytes);

  const NodeActivity now = sources_.activity();
  const SteadyClock::Point time = clock_.Now();
  const double seconds = absl::ToDoubleSeconds(absl::FromChrono(time - measured_));
  load.set_sent_bytes_per_second(PerSecond(before_.sent_bytes, now.sent_bytes, seconds));
  load.set_received_bytes_per_second(PerSecond(before_.received_bytes, now.received_bytes, seconds));
  load.set_calls_running(
      static_cast<uint32_t>(std::min<uint64_t>(now.calls_running, std::numeric_limits<uint32_t>::max())));
  if (seconds > 0 && now.threads > 0) {
    const double busy = absl::ToDoubleSeconds(now.busy - before_.busy) / (seconds * static_cast<double>(now.threads));
    load.set_busy_permille(static_cast<uint32_t>(std::lround(std::clamp(busy, 0.0, 1.0) * 1000)));
  }
  measured_ = time;
  before_ = now;

  load.set_moving_bytes_left(sources_.metrics->moving_bytes_left());
  for (const HotKeys::Hot& hot : sources_.hot_keys->Top(kMaxHotKeys)) {
    const absl::StatusOr<ChunkDescription> held = sources_.store->Describe(hot.key);
    if (!held.ok() || held->manifest->space != hot.space) continue;  // asked for in vain
    v1::HotKey& key = *load.add_hot();
    key.set_space_id(std::string(AsStringView(hot.space.span())));
    key.set_key(std::string(AsStringView(hot.key.span())));
    key.set_fetches_per_second(hot.per_second);
    key.set_encoded_bytes(held->manifest->EncodedBytes());
  }
  load.set_unix_ms(static_cast<uint64_t>(std::max<int64_t>(0, absl::ToUnixMillis(Clock::Real().Now()))));
  return load;
}

}  // namespace kdn
