#include "storage/disk/reclaimer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

Reclaimer::Reclaimer(SegmentFiles& files, IoPool& io) : files_(files), io_(io), thread_([this] { Run(); }) {}

Reclaimer::~Reclaimer() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  arrived_.NotifyAll();
  thread_.join();
}

void Reclaimer::Punch(uint32_t segment, uint64_t offset, uint64_t length) {
  MutexLock lock(mu_);
  dead_bytes_ += length;
  dead_by_segment_[segment] += length;
  if (!can_punch_) return;
  queued_bytes_ += length;
  Work& work = queue_[segment];
  work.ranges.push_back({offset, length});
  work.bytes += length;
  arrived_.NotifyOne();
}

void Reclaimer::Remove(uint32_t segment, uint64_t bytes) {
  MutexLock lock(mu_);
  dead_bytes_ += bytes;
  dead_by_segment_[segment] += bytes;
  queued_bytes_ += bytes;
  Work& work = queue_[segment];
  work.remove = true;
  work.bytes += bytes;
  arrived_.NotifyOne();
}

void Reclaimer::WaitUntilQueued(uint64_t bytes) {
  MutexLock lock(mu_);
  while (queued_bytes_ > bytes) finished_.Wait(mu_);
}

void Reclaimer::WaitUntilIdle() {
  MutexLock lock(mu_);
  while (busy_ || !queue_.empty()) finished_.Wait(mu_);
}

uint64_t Reclaimer::dead_bytes() const {
  MutexLock lock(mu_);
  return dead_bytes_;
}

uint64_t Reclaimer::dead_bytes(uint32_t segment) const {
  MutexLock lock(mu_);
  const auto it = dead_by_segment_.find(segment);
  return it == dead_by_segment_.end() ? 0 : it->second;
}

void Reclaimer::Run() {
  while (true) {
    Queue queue;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stopping_) arrived_.Wait(mu_);
      if (queue_.empty()) return;
      queue.swap(queue_);
      busy_ = true;
    }
    std::vector<Queue::value_type*> items;
    for (Queue::value_type& item : queue) items.push_back(&item);
    io_.ForEach(items.size(), [&](size_t i) { Do(items[i]->first, items[i]->second); });

    MutexLock lock(mu_);
    busy_ = false;
    for (const auto& [segment, work] : queue) {
      queued_bytes_ -= work.bytes;
      uint64_t& dead = dead_by_segment_[segment];  // absent when a batch before this one brought all of it back
      const uint64_t came_back = work.removed ? dead : work.came_back;
      dead_bytes_ -= came_back;
      dead -= came_back;
      if (dead == 0) dead_by_segment_.erase(segment);
    }
    finished_.NotifyAll();
  }
}

void Reclaimer::Do(uint32_t segment, Work& work) {
  if (work.remove) {
    const absl::Status removed = files_.Remove(segment);
    work.removed = removed.ok() || absl::IsNotFound(removed);
    if (!work.removed) spdlog::warn("{}; its space comes back at the next start", MessageOf(removed));
    return;
  }
  const absl::StatusOr<std::shared_ptr<File>> file = files_.Get(segment);
  if (!file.ok()) return spdlog::warn("{}; its space comes back at the next start", MessageOf(file.status()));
  std::sort(work.ranges.begin(), work.ranges.end(), [](Range a, Range b) { return a.offset < b.offset; });
  for (size_t i = 0; i < work.ranges.size();) {
    Range merged = work.ranges[i];
    while (++i < work.ranges.size() && work.ranges[i].offset == merged.offset + merged.length) {
      merged.length += work.ranges[i].length;
    }
    if (PunchNow(**file, merged)) work.came_back += merged.length;
  }
}

bool Reclaimer::PunchNow(File& file, Range range) {
  if (!can_punch_) return false;
  const absl::Status punched = file.PunchHole(range.offset, range.length);
  if (absl::IsUnimplemented(punched)) {
    if (can_punch_.exchange(false)) {
      spdlog::warn("{}: space comes back only when a whole segment is empty", MessageOf(punched));
    }
  } else if (!punched.ok()) {
    spdlog::warn("{}; its space comes back when the segment is empty, or at the next start", MessageOf(punched));
  }
  return punched.ok();
}

}  // namespace kdn
