#include "placement/daemon/load_book.h"

#include <algorithm>
#include <utility>

namespace kdn {

void LoadBook::Heard(const std::string& id, LeaseId session, v1::NodeLoad load) {
  auto shared = std::make_shared<const v1::NodeLoad>(std::move(load));
  const SteadyClock::Point now = clock_.Now();
  MutexLock lock(mu_);
  Entry& entry = entries_[id];
  if (!entry.heard || entry.session != session) entry.write_at = now;  // the others know nothing of it yet
  entry.load = std::move(shared);
  entry.session = session;
  entry.heard = true;
  entry.heard_at = now;
  entry.unwritten = true;
}

void LoadBook::Told(const std::string& id, LoadPtr load) {
  const SteadyClock::Point now = clock_.Now();
  MutexLock lock(mu_);
  const auto entry = entries_.find(id);
  if (entry != entries_.end() && entry->second.heard &&
      now - entry->second.heard_at < absl::ToChronoNanoseconds(2 * interval_)) {
    return;
  }
  if (load == nullptr) {
    if (entry != entries_.end()) entries_.erase(entry);
    return;
  }
  entries_[id] = Entry{.load = std::move(load)};
}

void LoadBook::Gone(const std::string& id) {
  MutexLock lock(mu_);
  entries_.erase(id);
}

LoadPtr LoadBook::Find(std::string_view id) const {
  MutexLock lock(mu_);
  const auto entry = entries_.find(id);
  return entry == entries_.end() ? nullptr : entry->second.load;
}

Loads LoadBook::All() const {
  Loads all;
  MutexLock lock(mu_);
  for (const auto& [id, entry] : entries_) all.emplace_hint(all.end(), id, entry.load);
  return all;
}

std::vector<LoadBook::Due> LoadBook::TakeDue(size_t most) {
  const SteadyClock::Point now = clock_.Now();
  std::vector<Due> due;
  MutexLock lock(mu_);
  for (auto& [id, entry] : entries_) {
    if (due.size() == most) break;
    if (!entry.unwritten || entry.write_at > now) continue;
    entry.unwritten = false;
    entry.write_at = now + absl::ToChronoNanoseconds(interval_);
    due.push_back({.id = id, .session = entry.session, .load = entry.load});
  }
  return due;
}

SteadyClock::Point LoadBook::NextDue() const {
  SteadyClock::Point next = SteadyClock::Point::max();
  MutexLock lock(mu_);
  for (const auto& [id, entry] : entries_) {
    if (entry.unwritten) next = std::min(next, entry.write_at);
  }
  return next;
}

}  // namespace kdn
