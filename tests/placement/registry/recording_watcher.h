// RecordingWatcher: a watcher that keeps what it is told, lets tests wait for it, and notes every breach of the
// contract.
//
//   RecordingWatcher watcher;
//   const auto watch = registry->Watch("nodes/", watcher);
//   ASSERT_TRUE(watcher.WaitFor([](const Told& told) { return told.view.contains("nodes/a"); }));
//   EXPECT_THAT(watcher.told().faults, testing::IsEmpty());
//
// Thread-safety: any thread may call.
#ifndef KDN_TESTS_PLACEMENT_REGISTRY_RECORDING_WATCHER_H_
#define KDN_TESTS_PLACEMENT_REGISTRY_RECORDING_WATCHER_H_

#include <fmt/core.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "placement/registry/registry.h"
#include "storage/base/mutex.h"

namespace kdn {

struct Told {
  std::map<std::string, Record> view = {};  // what the watcher believes that there is
  std::vector<RegistryEvent> events = {};   // all, in the order of the calls
  std::vector<size_t> batches = {};         // events of each call
  std::vector<Snapshot> snapshots = {};
  int losses = 0;
  int returns = 0;  // calls of OnEvents without events
  bool lost = false;
  Revision revision = 0;
  std::vector<std::string> faults = {};
};

class RecordingWatcher final : public RegistryWatcher {
 public:
  void OnSnapshot(const Snapshot& snapshot) override {
    MutexLock lock(mu_);
    told_.snapshots.push_back(snapshot);
    told_.view.clear();
    for (const Record& record : snapshot.records) told_.view[record.key] = record;
    told_.revision = snapshot.revision;
    told_.lost = false;
    changed_.NotifyAll();
  }
  void OnEvents(const std::vector<RegistryEvent>& events, Revision revision) override {
    MutexLock lock(mu_);
    if (told_.snapshots.empty()) told_.faults.push_back("events before the first snapshot");
    if (events.empty() && !told_.lost) told_.faults.push_back("no events, and nothing was lost");
    if (!events.empty() && events.front().record.revision <= told_.revision) {
      told_.faults.push_back(fmt::format("revision {} comes after {}", events.front().record.revision, told_.revision));
    }
    if (!events.empty() && events.back().record.revision != revision) told_.faults.push_back("a revision of its own");
    Revision last = 0;
    for (const RegistryEvent& event : events) {
      if (event.record.revision < last) told_.faults.push_back("events out of order");
      last = event.record.revision;
      told_.events.push_back(event);
      if (event.deleted) {
        told_.view.erase(event.record.key);
      } else {
        told_.view[event.record.key] = event.record;
      }
    }
    if (events.empty()) {
      ++told_.returns;
    } else {
      told_.batches.push_back(events.size());
      told_.revision = revision;
    }
    told_.lost = false;
    changed_.NotifyAll();
  }
  void OnLost(const absl::Status& why) override {
    MutexLock lock(mu_);
    if (why.code() != absl::StatusCode::kUnavailable) told_.faults.push_back("lost, but " + why.ToString());
    ++told_.losses;
    told_.lost = true;
    changed_.NotifyAll();
  }

  // False when it did not become true in a minute.
  bool WaitFor(const std::function<bool(const Told&)>& enough) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    MutexLock lock(mu_);
    while (!enough(told_)) {
      if (std::chrono::steady_clock::now() >= end) return false;
      changed_.WaitUntil(mu_, end);
    }
    return true;
  }
  bool WaitForSnapshot() {
    return WaitFor([](const Told& told) { return !told.snapshots.empty(); });
  }

  Told told() {
    MutexLock lock(mu_);
    return told_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  Told told_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_REGISTRY_RECORDING_WATCHER_H_
