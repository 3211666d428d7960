#include "storage/analytics/event_log.h"

#include <algorithm>

namespace kdn {
namespace {

constexpr absl::Duration kWindow = absl::Seconds(10);
// Fewer evictions than that within a window are everyday life of a full tier.
constexpr uint64_t kBurstChunks = 100;
// Kinds that are counted, times tiers.
constexpr size_t kMostWindows = 16;

}  // namespace

std::string_view EventKindName(EventKind kind) {
  switch (kind) {
    case EventKind::kSpaceSeen:
      return "space_seen";
    case EventKind::kEvictionBurst:
      return "eviction_burst";
    case EventKind::kRefused:
      return "refused";
    case EventKind::kCorrupt:
      return "corrupt";
    case EventKind::kSpacesFull:
      return "spaces_full";
  }
  return "unknown";
}

void EventLog::Happened(Event event, absl::Time now) {
  event.time = now;
  MutexLock lock(mu_);
  CloseWindows(now);
  Append(event);
}

void EventLog::Count(const Event& event, uint64_t bytes, absl::Time now) {
  MutexLock lock(mu_);
  CloseWindows(now);
  auto window = std::ranges::find_if(
      windows_, [&](const Event& open) { return open.kind == event.kind && open.tier == event.tier; });
  if (window == windows_.end()) {
    windows_.push_back(event);
    window = windows_.end() - 1;
    window->time = now;
  }
  ++window->chunks;
  window->bytes += bytes;
}

void EventLog::CloseWindows(absl::Time now) {
  const auto over = [&](const Event& open) { return now - open.time >= kWindow || now < open.time; };
  for (const Event& open : windows_) {
    if (!over(open)) continue;
    if (open.kind != EventKind::kEvictionBurst || open.chunks >= kBurstChunks) Append(open);
  }
  std::erase_if(windows_, over);
}

void EventLog::Append(Event event) {
  event.sequence = ++last_;
  if (events_.size() >= room_) events_.pop_front();
  events_.push_back(event);
}

std::vector<Event> EventLog::After(uint64_t sequence, size_t most, absl::Time now) {
  MutexLock lock(mu_);
  CloseWindows(now);
  auto first = std::ranges::find_if(events_, [&](const Event& event) { return event.sequence > sequence; });
  const auto left = static_cast<size_t>(events_.end() - first);
  if (left > most) first += static_cast<std::ptrdiff_t>(left - most);
  return {first, events_.end()};
}

size_t EventLog::MemoryBytes() const { return sizeof *this + (room_ + kMostWindows) * sizeof(Event); }

}  // namespace kdn
