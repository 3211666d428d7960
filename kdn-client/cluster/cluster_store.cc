#include "kdn-client/cluster/cluster_store.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>

#include "kdn-client/async/wait.h"
#include "kdn-client/call_rules.h"
#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Once every chunk is held by one of its writers, the others are waited for as long again, and this.
constexpr absl::Duration kGrace = absl::Milliseconds(50);
// Stores that may go on behind their callers' backs. Beyond that, callers wait.
constexpr size_t kMaxBehind = 64;

// How often a store that waits for a writer looks whether that is one still.
constexpr absl::Duration kLook = absl::Milliseconds(100);

// What one round of stores to all writers came to.
class StoreRound {
 public:
  explicit StoreRound(std::span<const Chunk> chunks)
      : chunks_(chunks.begin(), chunks.end()), ok_(chunks.size()), failures_(chunks.size()) {}

  const std::vector<Chunk>& chunks() const { return chunks_; }

  void Begin(NodeSlot slot) {
    MutexLock lock(mu_);
    running_.insert(slot);
  }
  void Ended(NodeSlot slot, std::span<const size_t> which, const std::string& writer,
             const absl::StatusOr<std::vector<absl::Status>>& stored) {
    MutexLock lock(mu_);
    for (size_t k = 0; k < which.size(); ++k) {
      const absl::Status status = stored.ok() ? (*stored)[k] : stored.status();
      if (status.ok()) {
        ok_[which[k]].insert(writer);
      } else {
        failures_[which[k]] = Apart(status);
      }
    }
    running_.erase(slot);
    changed_.NotifyAll();
  }

  // Waits for all writers, or, with `one_is_enough`, until every chunk has one and the others had their chance.
  void Await(bool one_is_enough, absl::Time deadline) {
    const absl::Time begun = RealNow();
    absl::Time until = deadline;
    bool all_held = false;
    MutexLock lock(mu_);
    while (!running_.empty()) {
      const absl::Time now = RealNow();
      if (one_is_enough && !all_held && AllHeld()) {
        all_held = true;
        until = std::min(deadline, now + (now - begun) + kGrace);
      }
      if (now >= until) return;
      changed_.WaitUntil(mu_, SteadyTime(Clock::Real(), until));
    }
  }

  std::set<NodeSlot> running() const {
    MutexLock lock(mu_);
    return running_;
  }
  struct Outcome {
    std::vector<std::set<std::string>> ok;
    std::vector<absl::Status> failures;  // the last of each chunk
  };
  // What is known by now; failures once.
  Outcome Take() {
    MutexLock lock(mu_);
    Outcome outcome = {.ok = ok_, .failures = std::move(failures_)};
    failures_.assign(chunks_.size(), absl::OkStatus());
    return outcome;
  }

 private:
  bool AllHeld() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return std::ranges::none_of(ok_, [](const std::set<std::string>& by) { return by.empty(); });
  }

  const std::vector<Chunk> chunks_;  // their bytes are shared
  mutable Mutex mu_;
  CondVar changed_;
  std::set<NodeSlot> running_ ABSL_GUARDED_BY(mu_);             // writers that have not answered
  std::vector<std::set<std::string>> ok_ ABSL_GUARDED_BY(mu_);  // by chunk: the ids of the nodes that have it
  std::vector<absl::Status> failures_ ABSL_GUARDED_BY(mu_);
};

// Whether the same may soon succeed: the writer is back, or is none any longer.
bool MayPass(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsCancelled(status); }

class StoreCall {
 public:
  StoreCall(ClusterCore& core, TopologyViewPtr view, std::span<const Chunk> chunks, Ack ack, absl::Time deadline)
      : core_(core),
        view_(std::move(view)),
        chunks_(chunks),
        ack_(ack),
        deadline_(deadline),
        statuses_(chunks.size()),
        held_by_(chunks.size()) {}

  std::vector<absl::Status> Run() {
    std::vector<size_t> left(chunks_.size());
    for (size_t i = 0; i < left.size(); ++i) left[i] = i;
    Backoff backoff(absl::Milliseconds(50), absl::Seconds(1), std::random_device()());
    while (true) {
      StoreToWriters(left);
      std::erase_if(left, [&](size_t i) { return statuses_[i].ok() || !MayPass(statuses_[i]); });
      if (left.empty() || ack_ != Ack::kDurable || RealNow() >= deadline_) return std::move(statuses_);
      // A writer is away. It comes back, or a later topology says who writes in its place.
      core_.source->Suspect();
      const absl::Time again = std::min(deadline_, RealNow() + backoff.Next());
      core_.source->AwaitNewer(view_->topology->epoch(), again);
      if (RealNow() >= deadline_) return std::move(statuses_);
      if (absl::StatusOr<TopologyViewPtr> newest = core_.View(); newest.ok()) view_ = *std::move(newest);
    }
  }

 private:
  // Stores `which` chunks to those of their writers that do not have them yet, and says in statuses_ how that ended.
  void StoreToWriters(std::span<const size_t> which) {
    const Topology& topology = *view_->topology;
    std::map<NodeSlot, std::vector<size_t>> by_writer;
    for (const size_t i : which) {
      const NodeList writers = topology.Writers(chunks_[i].manifest->key);
      for (const NodeSlot slot : writers.slots()) {
        if (!held_by_[i].contains(topology.NodeAt(slot)->id)) by_writer[slot].push_back(i);
      }
      statuses_[i] = absl::OkStatus();
      if (writers.empty()) {
        statuses_[i] = Unavailable("no node that is up owns partition {} (epoch {})",
                                   topology.PartitionOf(chunks_[i].manifest->key), topology.epoch());
      }
    }

    const auto round = std::make_shared<StoreRound>(chunks_);
    for (auto& [slot, chunks] : by_writer) {
      round->Begin(slot);
      core_.attempts.Run([&core = core_, view = view_, round, slot = slot, chunks = std::move(chunks), ack = ack_,
                          deadline = deadline_] {
        const std::string& writer = view->topology->NodeAt(slot)->id;
        round->Ended(slot, chunks, writer, StoreTo(core, *view, slot, round->chunks(), chunks, ack, deadline));
      });
    }
    if (ack_ == Ack::kMemory) {
      round->Await(/*one_is_enough=*/core_.attempts.running() < kMaxBehind, deadline_);
    } else {
      AwaitWriters(*round);
    }
    const StoreRound::Outcome outcome = round->Take();
    for (const size_t i : which) {
      held_by_[i].insert(outcome.ok[i].begin(), outcome.ok[i].end());
      if (!statuses_[i].ok()) continue;
      statuses_[i] = StatusOf(i, topology.Writers(chunks_[i].manifest->key), outcome.failures[i]);
    }
  }

  absl::Status StatusOf(size_t i, const NodeList& writers, const absl::Status& failure) const {
    const auto has_it = [&](NodeSlot slot) { return held_by_[i].contains(view_->topology->NodeAt(slot)->id); };
    const bool enough = ack_ == Ack::kMemory ? !held_by_[i].empty() : std::ranges::all_of(writers.slots(), has_it);
    if (enough) return absl::OkStatus();
    if (!failure.ok()) return failure;
    if (RealNow() < deadline_) return Unavailable("a node that owns the chunk went down before it had it");
    return DeadlineExceeded("not all nodes that own the chunk answered in time");
  }

  // For all writers, but for those that go down meanwhile: a node that a cut network has swallowed does not answer.
  void AwaitWriters(StoreRound& round) {
    while (true) {
      round.Await(/*one_is_enough=*/false, std::min(deadline_, RealNow() + kLook));
      const std::set<NodeSlot> running = round.running();
      if (running.empty() || RealNow() >= deadline_) return;
      const TopologyPtr newest = core_.source->Current();
      if (newest == nullptr || newest == view_->topology) continue;
      const auto serves = [&](NodeSlot slot) {
        const NodeInfo* node = newest->FindNode(view_->topology->NodeAt(slot)->id);
        return node != nullptr && node->Serves();
      };
      if (!std::ranges::all_of(running, serves)) return;
    }
  }

  static absl::StatusOr<std::vector<absl::Status>> StoreTo(ClusterCore& core, const TopologyView& view, NodeSlot slot,
                                                           const std::vector<Chunk>& all, std::span<const size_t> which,
                                                           Ack ack, absl::Time deadline) {
    std::vector<Chunk> chunks;
    chunks.reserve(which.size());
    for (const size_t i : which) chunks.push_back(all[i]);
    ClusterNode& node = view.NodeAt(slot);
    absl::StatusOr<std::vector<absl::Status>> stored = node.transport().Store(chunks, ack, deadline);
    if (stored.ok() && stored->size() != chunks.size()) {
      stored = DataLoss("it answered for {} chunks of {}", stored->size(), chunks.size());
    }
    node.Note(stored.status());
    if (absl::IsUnavailable(stored.status())) core.source->Suspect();
    if (!stored.ok()) return Annotate(stored.status(), view.NameOf(slot));
    for (absl::Status& status : *stored) status = Annotate(status, view.NameOf(slot));
    return stored;
  }

  ClusterCore& core_;
  TopologyViewPtr view_;
  const std::span<const Chunk> chunks_;
  const Ack ack_;
  const absl::Time deadline_;
  std::vector<absl::Status> statuses_;
  std::vector<std::set<std::string>> held_by_;  // by chunk: who has acknowledged it
};

}  // namespace

absl::StatusOr<std::vector<absl::Status>> StoreInCluster(ClusterCore& core, TopologyViewPtr view,
                                                         std::span<const Chunk> chunks, Ack ack, absl::Time deadline) {
  std::vector<absl::Status> statuses = StoreCall(core, std::move(view), chunks, ack, deadline).Run();
  const auto away = [](const absl::Status& status) { return absl::IsUnavailable(status); };
  if (!statuses.empty() && std::ranges::all_of(statuses, away)) return statuses.front();
  return statuses;
}

}  // namespace kdn
