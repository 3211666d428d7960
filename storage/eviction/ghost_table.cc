#include "storage/eviction/ghost_table.h"

#include <algorithm>

namespace kdn {
namespace {

uint32_t FingerprintOf(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

}  // namespace

void GhostTable::Reserve(size_t capacity) {
  capacity_ = capacity;
  if (capacity + capacity / 4 <= entries_.size()) return;
  const std::vector<Entry> old = std::move(entries_);
  // Half as much room again: of 1000 entries, about five are lost because their set overflows before they lapse. A
  // chain is only as good as its first lost chunk, so that matters.
  entries_.assign((capacity + capacity / 2 + kWays) / kWays * kWays, {});
  for (const Entry& entry : old) {
    if (entry.stamp != 0) Put(entry);
  }
}

void GhostTable::Record(uint64_t hash, uint32_t value) {
  if (entries_.empty()) return;
  if (++now_ == 0) now_ = 1;
  Put({.fingerprint = FingerprintOf(hash), .stamp = now_, .value = value});
}

void GhostTable::Put(const Entry& entry) {
  Entry* const set = SetOf(entry.fingerprint);
  Entry* place = set;
  for (Entry* e = set; e != set + kWays; ++e) {
    if (e->stamp != 0 && e->fingerprint == entry.fingerprint) {
      place = e;
      break;
    }
    if (AgeOf(*e) > AgeOf(*place)) place = e;
  }
  *place = entry;
}

std::optional<uint32_t> GhostTable::Take(uint64_t hash) {
  if (entries_.empty()) return std::nullopt;
  Entry* const set = SetOf(FingerprintOf(hash));
  for (Entry* e = set; e != set + kWays; ++e) {
    if (e->stamp == 0 || e->fingerprint != FingerprintOf(hash)) continue;
    const Entry found = *e;
    *e = {};
    if (AgeOf(found) < capacity_) return found.value;
    return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace kdn
