#include "kdn-client/cluster/recent_lookups.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "storage/eviction/slot_table.h"

namespace kdn {
namespace {

constexpr size_t kKeys = 32'768;
constexpr uint32_t kRecentSeconds = 60;  // as nodes have it for lookups of their own

}  // namespace

RecentLookups::RecentLookups(const SteadyClock& clock) : clock_(clock), began_(clock.Now()), keys_(kKeys) {}

void RecentLookups::Note(std::span<const ChunkKey> keys, std::span<const FoundChunk> found) {
  const uint32_t now = Seconds();
  for (size_t i = 0; i < keys.size(); ++i) {
    if (found[i].miss.reason == MissReason::kNone) keys_.Remember(HashOf(keys[i]), 0, now);
  }
}

bool RecentLookups::FoundAll(std::span<const ChunkKey> keys) const {
  const uint32_t now = Seconds();
  return std::ranges::all_of(keys, [&](const ChunkKey& key) {
    const std::optional<KeyMemory::Note> note = keys_.Find(HashOf(key), now);
    return note.has_value() && note->age <= kRecentSeconds;
  });
}

uint32_t RecentLookups::Seconds() const {
  return static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::seconds>(clock_.Now() - began_).count());
}

}  // namespace kdn
