// EventLog: what an operator would want to have been told: a space seen for the first time, a burst of evictions,
// refusals, damaged chunks. The last few hundred, each with a sequence number from 1.
//
//   log.Happened({.kind = EventKind::kSpaceSeen, .space = space}, now);
//   log.Count({.kind = EventKind::kCorrupt, .tier = tier}, bytes, now);   // many of a kind become one event
//   for (const Event& event : log.After(last_seen, 100, now)) Show(event);
//
// What is counted is told once for every ten seconds in which it happened, when they are over, so that a flood is one
// line and not a thousand.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_ANALYTICS_EVENT_LOG_H_
#define KDN_STORAGE_ANALYTICS_EVENT_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/mutex.h"
#include "storage/chunk.h"
#include "storage/format/digest.h"

namespace kdn {

// The numbers are part of the protocol.
enum class EventKind : uint8_t {
  kSpaceSeen = 1,      // the first request or chunk of a space since the start
  kEvictionBurst = 2,  // a tier evicted many chunks within ten seconds
  kRefused = 3,        // chunks that were to be stored, or fetched, were refused for lack of room or by overload
  kCorrupt = 4,        // chunks were dropped because a checksum failed
  kSpacesFull = 5,     // a space more than are counted apart; from now on such count together
};
std::string_view EventKindName(EventKind kind);

struct Event {
  uint64_t sequence = 0;
  absl::Time time = {};
  EventKind kind = EventKind::kSpaceSeen;
  SpaceId space = {};               // zero where it is none's
  TierKind tier = TierKind::kNone;  // none where it is none's
  uint64_t chunks = 0;
  uint64_t bytes = 0;
};

class EventLog {
 public:
  // `room`: events that are kept; at least 1.
  explicit EventLog(size_t room) : room_(room) {}

  void Happened(Event event, absl::Time now);
  // One chunk more of `bytes` bytes; `event` says kind and tier.
  void Count(const Event& event, uint64_t bytes, absl::Time now);

  // Of those with greater numbers than `sequence` the last `most`, the oldest first.
  std::vector<Event> After(uint64_t sequence, size_t most, absl::Time now);

  size_t MemoryBytes() const;  // what it can become

 private:
  void Append(Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CloseWindows(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t room_;
  Mutex mu_;
  uint64_t last_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
  std::vector<Event> windows_ ABSL_GUARDED_BY(mu_);  // by kind and tier; their times are those of their first chunks
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_EVENT_LOG_H_
