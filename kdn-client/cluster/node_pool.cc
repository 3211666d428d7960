#include "kdn-client/cluster/node_pool.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace kdn {
namespace {

// Of a node that has not been measured: what a quick one takes, so that new nodes are tried.
constexpr double kUnmeasuredSeconds = 0.0005;
// How much a new measurement counts; more when the node becomes slower, as that has to be noticed first.
constexpr double kQuicker = 0.2;
constexpr double kSlower = 0.5;
// After so long, what was measured counts half.
constexpr double kHalfLifeSeconds = 5;

int64_t Nanos(SteadyClock::Point point) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(point.time_since_epoch()).count();
}

SteadyClock::Point Now() { return SteadyClock::Real().Now(); }

// Whether the node is to blame for the end of a call. When the caller gave up or asked for nonsense it is not.
bool IsNodeFailure(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInvalidArgument:
      return false;
    default:
      return true;
  }
}

}  // namespace

Transport& ClusterNode::transport() {
  MutexLock lock(mu_);
  if (transport_ == nullptr) transport_ = connect_(address_);
  return *transport_;
}

double ClusterNode::Cost(SteadyClock::Point now) const {
  double seconds = kUnmeasuredSeconds;
  {
    MutexLock lock(mu_);
    if (seconds_ > 0) {
      const double age = std::chrono::duration<double>(now - measured_).count();
      seconds += (seconds_ - kUnmeasuredSeconds) * std::exp2(-std::max(age, 0.0) / kHalfLifeSeconds);
    }
  }
  return seconds * (1.0 + under_way_.load(std::memory_order_relaxed));
}

bool ClusterNode::SilentFor(absl::Duration time, SteadyClock::Point now) const {
  if (under_way_.load(std::memory_order_relaxed) == 0) return false;
  return Nanos(now) - silent_since_.load(std::memory_order_relaxed) > absl::ToInt64Nanoseconds(time);
}

void ClusterNode::NoteAnswer(absl::Duration took, bool in_full, SteadyClock::Point now) {
  const double sample = std::max(absl::ToDoubleSeconds(took), 1e-6);
  MutexLock lock(mu_);
  // Of a call that was given up it is known only that it would have taken longer.
  if (!in_full && sample <= seconds_) return;
  const double weight = sample > seconds_ ? kSlower : kQuicker;
  seconds_ = seconds_ == 0 ? sample : seconds_ + weight * (sample - seconds_);
  measured_ = now;
}

void ClusterNode::Note(const absl::Status& ended) {
  if (ended.ok()) {
    rests_until_.store(0, std::memory_order_relaxed);
  } else if (IsNodeFailure(ended)) {
    Rest(rest_);
  }
}

void ClusterNode::Rest(absl::Duration duration) {
  const int64_t nanos = absl::ToInt64Nanoseconds(std::min(duration, absl::Hours(24)));
  rests_until_.store(Nanos(Now()) + nanos, std::memory_order_relaxed);
}

ClusterNode::Call::Call(ClusterNode& node) : node_(node), begun_(Now()) {
  if (node_.under_way_.fetch_add(1, std::memory_order_relaxed) == 0) {
    node_.silent_since_.store(Nanos(begun_), std::memory_order_relaxed);
  }
}

ClusterNode::Call::~Call() { Ended(absl::CancelledError()); }

void ClusterNode::Call::Answered() {
  if (first_answer_ != absl::InfiniteDuration()) return;
  const SteadyClock::Point now = Now();
  first_answer_ = absl::FromChrono(now - begun_);
  node_.silent_since_.store(Nanos(now), std::memory_order_relaxed);
  node_.NoteAnswer(first_answer_, /*in_full=*/true, now);
}

void ClusterNode::Call::Ended(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  node_.under_way_.fetch_sub(1, std::memory_order_relaxed);
  node_.Note(status);
  if (status.ok()) {
    Answered();
  } else if (!IsNodeFailure(status) && first_answer_ == absl::InfiniteDuration()) {
    const SteadyClock::Point now = Now();
    node_.NoteAnswer(absl::FromChrono(now - begun_), /*in_full=*/false, now);
  }
}

std::string TopologyView::NameOf(NodeSlot slot) const {
  const NodeInfo* node = topology->NodeAt(slot);
  return node == nullptr ? fmt::format("slot {}", slot) : fmt::format("node {} ({})", node->id, node->address);
}

std::shared_ptr<const TopologyView> NodePool::View(const TopologyPtr& topology) {
  MutexLock lock(mu_);
  if (view_ != nullptr && view_->topology == topology) return view_;
  auto view = std::make_shared<TopologyView>();
  view->topology = topology;
  absl::flat_hash_map<std::string, std::shared_ptr<ClusterNode>> kept;
  for (const NodeInfo& info : topology->parts().nodes) {
    const auto known = nodes_.find(info.address);
    std::shared_ptr<ClusterNode> node =
        known != nodes_.end() ? known->second
                              : std::make_shared<ClusterNode>(info.address, options_.connect, options_.rest);
    kept.emplace(info.address, node);
    if (info.slot >= view->nodes.size()) view->nodes.resize(size_t{info.slot} + 1);
    view->nodes[info.slot] = {.node = std::move(node), .near = !options_.zone.empty() && info.zone == options_.zone};
  }
  nodes_.swap(kept);
  view_ = view;
  return view;
}

}  // namespace kdn
