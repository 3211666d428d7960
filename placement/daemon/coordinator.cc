#include "placement/daemon/coordinator.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <utility>

#include "placement/daemon/records.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kCommitTime = absl::Seconds(2);
constexpr absl::Duration kRetry = absl::Milliseconds(250);
constexpr int kAttempts = 8;          // at one commit, when others are first
constexpr size_t kLoadsAtOnce = 64;   // in one commit
constexpr size_t kLoadCommits = 64;   // in one step
constexpr size_t kMaxFollowers = 10;  // that differ in their delay
// Changes of membership that keep coming do not hold up rebalancing for longer than this many settle times.
constexpr int kLongestSettle = 10;
// Leaves room for the conditions that every commit has.
constexpr size_t kMembersAtOnce = kMaxRegistryChangeRecords - 16;

absl::Time CommitDeadline() { return absl::Now() + kCommitTime; }

absl::Status Stopping() { return Unavailable("this placement daemon is stopping; ask another"); }

SteadyClock::Point After(SteadyClock::Point point, absl::Duration by) { return point + absl::ToChronoNanoseconds(by); }

// What rebalancing looks at.
bool SameMembers(const Topology& a, const Topology& b) {
  return std::ranges::equal(a.parts().nodes, b.parts().nodes, [](const NodeInfo& x, const NodeInfo& y) {
    return x.id == y.id && x.slot == y.slot && x.zone == y.zone && x.weight == y.weight && x.Serves() == y.Serves() &&
           (x.state == NodeState::kDraining) == (y.state == NodeState::kDraining);
  });
}

bool Holds(const Change::Condition& condition, const ClusterView& view) {
  const std::string_view key = condition.key;
  if (!key.starts_with(kNodesPrefix)) return true;  // the registry will say
  const std::optional<NodeRecord> node = view.FindNode(key.substr(kNodesPrefix.size()));
  return (node.has_value() ? node->revision : 0) == condition.revision;
}

}  // namespace

// What should be in the next epoch.
struct Coordinator::Due {
  std::vector<NodeRecord> joins;
  std::vector<std::string> losses;
  bool fills = false;
  bool requests = false;
  bool rebalance = false;
  std::vector<std::string> abandon;  // for any rebalance of this epoch
  std::optional<std::map<ChunkKey, HotChunk>> hot;
  Point next = Point::max();  // when more will be due

  bool Any() const { return !joins.empty() || !losses.empty() || fills || requests || rebalance || hot.has_value(); }
};

// A next epoch that is ready to be committed.
struct Coordinator::Built {
  absl::StatusOr<TopologyPtr> topology = TopologyPtr();
  Change change;
  std::vector<Request> requests;  // that it grants
  bool rebalanced = false;
  size_t lost = 0;
};

Coordinator::Coordinator(Registry& registry, ClusterView& view, LoadBook& loads, const PlacementOptions& options,
                         std::string daemon_id, const SteadyClock& clock)
    : registry_(registry),
      view_(view),
      loads_(loads),
      options_(options),
      daemon_id_(std::move(daemon_id)),
      clock_(clock),
      membership_(options.node_ttl),
      hot_(options.hot_rate, options.hot_cool),
      next_hot_at_(After(clock.Now(), kHotInterval)) {}

void Coordinator::Submit(TopologyRequest request) {
  std::optional<TopologyRequest> refused;
  {
    MutexLock lock(mu_);
    if (stopped_) {
      refused = std::move(request);
    } else {
      new_requests_.push_back({.request = std::move(request), .give_up = After(clock_.Now(), kRequestTime)});
    }
  }
  if (refused.has_value()) return refused->done(Stopping());
  wake_();
}

void Coordinator::Admit(std::string id, Revision revision, TopologyRequest::Done done) {
  std::optional<Admission> refused;
  {
    Admission admission{.id = std::move(id),
                        .revision = revision,
                        .done = std::move(done),
                        .give_up = After(clock_.Now(), kRequestTime)};
    MutexLock lock(mu_);
    if (stopped_) {
      refused = std::move(admission);
    } else {
      new_admissions_.push_back(std::move(admission));
    }
  }
  if (refused.has_value()) return refused->done(Stopping());
  wake_();
}

void Coordinator::ReportFilled(std::string id, std::vector<Partition> partitions, Epoch filled_epoch) {
  {
    MutexLock lock(mu_);
    if (stopped_) return;
    new_fills_.push_back({.id = std::move(id), .partitions = std::move(partitions), .epoch = filled_epoch});
  }
  wake_();
}

void Coordinator::Stop() {
  {
    MutexLock lock(mu_);
    stopped_ = true;
  }
  Collect();
  FailAll(Stopping());
}

SteadyClock::Point Coordinator::Step() {
  Collect();
  const Point now = clock_.Now();
  GiveUp(now);
  Point next = Point::max();
  for (const Request& request : requests_) next = std::min(next, request.give_up);
  for (const Request& request : unsure_requests_) next = std::min(next, request.give_up);
  for (const Admission& admission : admissions_) next = std::min(next, admission.give_up);

  if (now < retry_at_) return std::min(next, retry_at_);
  if (!ResolveUnsure()) return RetryLater(now, next);
  if (!WriteLoads()) return RetryLater(now, next);
  next = std::min(next, loads_.NextDue());
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const TopologyState state = view_.topology();
    if (state.topology == nullptr || !state.fault.ok()) {
      FailAll(state.fault.ok() ? Unavailable("the registry has no topology yet; try again")
                               : Unavailable("nothing can be changed: {}", MessageOf(state.fault)));
      return next;
    }
    Observe(now);
    SettleAdmissions();
    if (!view_.synced()) return next;
    const Due due = Decide(*state.topology, now);
    if (!due.Any()) return std::min(next, due.next);
    if (now < next_epoch_at_) return std::min(next, next_epoch_at_);
    const Outcome outcome = Commit(state, due, now);
    if (outcome == Outcome::kFailed) break;
    if (outcome == Outcome::kAborted && !Refresh().ok()) break;
  }
  return RetryLater(now, next);
}

SteadyClock::Point Coordinator::RetryLater(Point now, Point next) {
  retry_at_ = After(now, kRetry);
  return std::min(next, retry_at_);
}

void Coordinator::Collect() {
  std::vector<Request> requests;
  std::vector<Admission> admissions;
  std::vector<Fills> fills;
  {
    MutexLock lock(mu_);
    requests.swap(new_requests_);
    admissions.swap(new_admissions_);
    fills.swap(new_fills_);
  }
  std::ranges::move(requests, std::back_inserter(requests_));
  std::ranges::move(admissions, std::back_inserter(admissions_));
  if (!fills.empty()) Observe(clock_.Now());
  for (const Fills& fill : fills) fills_.Report(fill.id, fill.partitions, fill.epoch);
}

void Coordinator::GiveUp(Point now) {
  const absl::Status late =
      Unavailable("{} did not take the change in time, and it may or may not happen; try again", registry_.Describe());
  for (std::vector<Request>* requests : {&requests_, &unsure_requests_}) {
    std::erase_if(*requests, [&](const Request& request) {
      if (now < request.give_up) return false;
      request.request.done(late);
      return true;
    });
  }
  std::erase_if(admissions_, [&](const Admission& admission) {
    if (now < admission.give_up) return false;
    admission.done(late);
    return true;
  });
}

void Coordinator::FailAll(const absl::Status& why) {
  for (const Request& request : std::exchange(requests_, {})) request.request.done(why);
  for (const Request& request : std::exchange(unsure_requests_, {})) request.request.done(why);
  for (const Admission& admission : std::exchange(admissions_, {})) admission.done(why);
}

void Coordinator::Observe(Point now) {
  for (const TopologyPtr& topology : view_.TopologiesAfter(observed_ == nullptr ? 0 : observed_->epoch())) {
    NoteMembers(*topology, now);
    fills_.Observe(topology);
    membership_.Observe(*topology, now);
    observed_ = topology;
  }
}

void Coordinator::NoteMembers(const Topology& topology, Point now) {
  if (observed_ == nullptr || !SameMembers(*observed_, topology)) {
    changed_at_ = now;
    if (!unsettled_since_.has_value()) unsettled_since_ = now;
  }
  std::map<std::string, Point> down;
  for (const NodeInfo& node : topology.parts().nodes) {
    if (node.Serves()) {
      abandoned_.erase(node.id);
      continue;
    }
    const auto since = down_since_.find(node.id);
    down.emplace(node.id, since == down_since_.end() ? now : since->second);
  }
  down_since_ = std::move(down);
}

void Coordinator::SettleAdmissions() {
  std::erase_if(admissions_, [&](const Admission& admission) {
    const std::optional<NodeRecord> record = view_.FindNode(admission.id);
    if (!record.has_value()) {
      if (!view_.synced()) return false;
      admission.done(NotFound("node '{}': its session was over before it had joined; register again", admission.id));
      return true;
    }
    if (record->revision > admission.revision) {
      admission.done(NotFound("node '{}' was registered by another process meanwhile", admission.id));
      return true;
    }
    if (NeedsJoin(*record, *observed_)) return false;
    admission.done(observed_);
    return true;
  });
}

size_t Coordinator::Rank() const {
  const std::vector<std::string> daemons = view_.Daemons();
  return static_cast<size_t>(std::ranges::lower_bound(daemons, daemon_id_) - daemons.begin());
}

absl::Duration Coordinator::Delay() const {
  return kFollowerDelay * static_cast<int64_t>(std::min(Rank(), kMaxFollowers));
}

Coordinator::Due Coordinator::Decide(const Topology& topology, Point now) {
  const absl::Duration delay = Delay();
  Due due;
  std::set<std::string> asked_here;
  for (const Admission& admission : admissions_) asked_here.insert(admission.id);
  Membership::Due members = membership_.Decide(view_, topology, now, delay, asked_here);
  due.joins = std::move(members.joins);
  due.losses = std::move(members.losses);
  due.next = members.next;
  due.fills = !fills_.empty();
  due.requests = !requests_.empty();
  DecideRebalance(topology, now, delay, due);

  if (now < next_hot_at_) {
    due.next = std::min(due.next, next_hot_at_);
  } else {
    if (Rank() == 0) due.hot = hot_.Decide(topology, loads_.All(), now);
    if (!due.hot.has_value()) {
      next_hot_at_ = After(now, kHotInterval);
      due.next = std::min(due.next, next_hot_at_);
    }
  }
  return due;
}

void Coordinator::DecideRebalance(const Topology& topology, Point now, absl::Duration delay, Due& due) {
  if (unsettled_since_.has_value()) {
    const Point settled =
        After(std::min(After(changed_at_, options_.settle), After(*unsettled_since_, kLongestSettle * options_.settle)),
              delay);
    due.rebalance = now >= settled;
    if (!due.rebalance) due.next = std::min(due.next, settled);
  }
  for (const auto& [id, since] : down_since_) {
    const Point at = After(since, options_.repair_after + delay);
    if (now < at) {
      due.next = std::min(due.next, at);
      continue;
    }
    due.abandon.push_back(id);
    const NodeInfo* node = topology.FindNode(id);
    if (abandoned_.contains(id) || node == nullptr) continue;
    if (topology.ShareOf(node->slot).owned == 0) continue;
    spdlog::warn("node '{}' has been down for {}: its partitions are given to others", id,
                 absl::FormatDuration(options_.repair_after));
    due.rebalance = true;
  }
}

Coordinator::Built Coordinator::Build(const TopologyState& state, const Due& due) {
  Built built;
  TopologyChange change(*state.topology);
  std::set<std::string> conditioned;
  const auto require = [&](const std::string& key, Revision revision) {
    if (conditioned.insert(key).second) {
      built.change.conditions.push_back({.key = key, .revision = revision});
    }
  };
  require(std::string(kTopologyKey), state.revision);

  std::vector<Request> later;
  for (Request& request : requests_) {
    const TopologyRequest& wanted = request.request;
    const size_t records =
        built.change.conditions.size() + built.change.deletes.size() + wanted.conditions.size() + wanted.deletes.size();
    if (records >= kMembersAtOnce) {
      later.push_back(std::move(request));
      continue;
    }
    absl::Status done = absl::OkStatus();
    for (const Change::Condition& condition : wanted.conditions) {
      if (Holds(condition, view_)) continue;
      done = absl::AbortedError("'" + condition.key + "' has changed meanwhile; look again, and try again");
    }
    if (done.ok()) done = wanted.change(change);
    if (!done.ok()) {
      wanted.done(done);
      continue;
    }
    for (const Change::Condition& condition : wanted.conditions) require(condition.key, condition.revision);
    for (const std::string& key : wanted.deletes) {
      if (std::ranges::find(built.change.deletes, key) == built.change.deletes.end())
        built.change.deletes.push_back(key);
    }
    built.rebalanced |= wanted.rebalance;
    built.requests.push_back(std::move(request));
  }
  requests_ = std::move(later);

  // A request that takes a node's record away has the last word on that node.
  const auto room = [&] { return built.change.conditions.size() + built.change.deletes.size() < kMembersAtOnce; };
  for (const NodeRecord& record : due.joins) {
    const std::string key = NodeKey(record.node.id);
    if (!room() || conditioned.contains(key)) continue;
    if (absl::Status joined = change.Join(JoiningNode(record, *state.topology)); !joined.ok()) {
      spdlog::error("node '{}' cannot join: {}", record.node.id, MessageOf(joined));
      membership_.Refused(record);
      std::erase_if(admissions_, [&](const Admission& admission) {
        if (admission.id != record.node.id) return false;
        admission.done(joined);
        return true;
      });
      continue;
    }
    require(key, record.revision);
  }
  for (const std::string& id : due.losses) {
    if (!room() || conditioned.contains(NodeKey(id))) continue;
    if (!change.Lost(id).ok()) continue;
    require(NodeKey(id), 0);
    ++built.lost;
    spdlog::warn("the session of node '{}' is over: it is down", id);
  }
  for (const auto& [id, partitions] : fills_.Pending()) {
    if (absl::Status filled = change.Filled(id, partitions); !filled.ok()) {
      spdlog::warn("what node '{}' has filled is passed over: {}", id, MessageOf(filled));
    }
  }
  built.rebalanced |= due.rebalance;
  if (built.rebalanced) change.Rebalance(due.abandon);
  if (due.hot.has_value()) change.SetHot(*due.hot);
  built.topology = std::move(change).Finish();
  return built;
}

Coordinator::Outcome Coordinator::Commit(const TopologyState& state, const Due& due, Point now) {
  Built built = Build(state, due);
  const auto refuse = [&built](const absl::Status& why) {
    spdlog::error("{}", MessageOf(why));
    for (const Request& request : built.requests) request.request.done(why);
    return Outcome::kFailed;
  };
  if (!built.topology.ok()) {
    fills_.Clear();  // whichever of them it was
    return refuse(Internal("the next topology would be invalid: {}", MessageOf(built.topology.status())));
  }
  const TopologyPtr& next = *built.topology;
  const bool moved = next->epoch() != state.topology->epoch();
  Revision revision = 0;
  if (moved) built.change.puts.push_back({.key = std::string(kTopologyKey), .value = EncodeTopologyRecord(*next)});
  if (moved && built.change.puts.back().value.size() > kMaxRegistryValueBytes) {
    // What else is to be changed shall not fail for it; a later change of membership tries again.
    if (due.rebalance) unsettled_since_.reset();
    if (due.rebalance) abandoned_.insert(due.abandon.begin(), due.abandon.end());
    return refuse(ResourceExhausted(
        "the next topology would have {} bytes, and a registry takes {}; use fewer partitions, replicas or nodes",
        built.change.puts.back().value.size(), kMaxRegistryValueBytes));
  }
  if (moved || !built.change.deletes.empty()) {
    const absl::StatusOr<Revision> committed = registry_.Commit(built.change, CommitDeadline());
    if (absl::IsAborted(committed.status())) {
      requests_.insert(requests_.begin(), std::make_move_iterator(built.requests.begin()),
                       std::make_move_iterator(built.requests.end()));
      return Outcome::kAborted;
    }
    if (absl::IsUnavailable(committed.status()) || absl::IsDeadlineExceeded(committed.status())) {
      unsure_ = next;
      unsure_requests_ = std::move(built.requests);
      return Outcome::kFailed;
    }
    if (!committed.ok()) return refuse(Annotate(committed.status(), fmt::format("epoch {}", next->epoch())));
    revision = *committed;
  }
  next_epoch_at_ = After(now, options_.epoch_interval);

  if (built.rebalanced) {
    unsettled_since_.reset();
    abandoned_.insert(due.abandon.begin(), due.abandon.end());
  }
  if (due.hot.has_value()) next_hot_at_ = After(now, kHotInterval);
  fills_.Clear();
  lost_nodes_.fetch_add(built.lost, std::memory_order_relaxed);
  if (moved) {
    view_.LearnOwnTopology(next, revision);
  } else {
    for (const NodeRecord& record : due.joins) membership_.Refused(record);  // it changes nothing
  }
  for (const std::string& key : built.change.deletes) view_.Forget(key, revision);
  Observe(now);
  if (built.rebalanced && observed_ == next) unsettled_since_.reset();  // it has seen the changes of its own epoch
  for (const Request& request : built.requests) request.request.done(next);
  SettleAdmissions();
  return Outcome::kDone;
}

absl::Status Coordinator::Refresh() {
  const absl::StatusOr<Snapshot> topology = registry_.Read(kTopologyKey, CommitDeadline());
  if (!topology.ok()) return topology.status();
  const absl::StatusOr<Snapshot> nodes = registry_.Read(kNodesPrefix, CommitDeadline());
  if (!nodes.ok()) return nodes.status();
  view_.Refresh(kTopologyKey, *topology);
  view_.Refresh(kNodesPrefix, *nodes);
  return absl::OkStatus();
}

bool Coordinator::ResolveUnsure() {
  if (unsure_ == nullptr) return true;
  if (!Refresh().ok()) return false;
  const TopologyPtr kept = view_.FindTopology(unsure_->parts().cluster_id, unsure_->epoch());
  std::vector<Request> waiting = std::exchange(unsure_requests_, {});
  if (kept != nullptr && kept->parts() == unsure_->parts()) {
    for (const Request& request : waiting) request.request.done(kept);
  } else {
    requests_.insert(requests_.begin(), std::make_move_iterator(waiting.begin()),
                     std::make_move_iterator(waiting.end()));
  }
  unsure_ = nullptr;
  return true;
}

bool Coordinator::WriteLoads() {
  const auto write = [this](const Change& change) {
    const absl::Status written = registry_.Commit(change, CommitDeadline()).status();
    return !absl::IsUnavailable(written) && !absl::IsDeadlineExceeded(written) ? std::optional(written.ok())
                                                                               : std::nullopt;
  };
  for (size_t commits = 0; commits < kLoadCommits; ++commits) {
    const std::vector<LoadBook::Due> due = loads_.TakeDue(kLoadsAtOnce);
    if (due.empty()) return true;
    Change change;
    for (const LoadBook::Due& load : due) {
      change.puts.push_back({.key = LoadKey(load.id), .value = load.load->SerializeAsString(), .lease = load.session});
    }
    const std::optional<bool> written = write(change);
    if (!written.has_value()) return false;
    if (*written) continue;
    // One of the sessions is over; the loads of the others are good.
    for (Change::Put& put : change.puts) {
      Change one;
      one.puts.push_back(std::move(put));
      if (!write(one).has_value()) return false;
    }
  }
  return true;
}

}  // namespace kdn
