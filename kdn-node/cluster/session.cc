#include "kdn-node/cluster/session.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "kdn-node/cluster/member_file.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(2);
constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(5);
// What placement may ask for.
constexpr absl::Duration kShortestTtl = absl::Milliseconds(30);
constexpr absl::Duration kLongestTtl = absl::Minutes(10);

absl::Duration TtlOf(uint64_t milliseconds) {
  constexpr auto kLimit = static_cast<uint64_t>(24 * 3600 * 1000);
  return std::clamp(absl::Milliseconds(static_cast<int64_t>(std::min(milliseconds, kLimit))), kShortestTtl,
                    kLongestTtl);
}

// Of a node that starts, or starts anew; never 0.
uint64_t Drawn(uint64_t seed, uint64_t number) {
  std::seed_seq seeds{seed, seed >> 32, number};
  std::mt19937_64 random(seeds);
  return random() | 1;
}

}  // namespace

Session::Session(const SessionOptions& options, MemberIdentity& identity, PlacementChannel& placement,
                 MemberMetrics& metrics, Sources sources, const SteadyClock& clock)
    : options_(options),
      identity_(identity),
      placement_(placement),
      metrics_(metrics),
      sources_(std::move(sources)),
      clock_(clock),
      backoff_(kFirstPause, kLongestPause, options.seed) {}

SteadyClock::Point Session::Step() {
  const absl::Status status = registered_ ? Heartbeat() : Register();
  if (status.ok()) {
    if (!std::exchange(told_, absl::OkStatus()).ok()) spdlog::info("cluster: placement answers again");
    backoff_.Reset();
    return In(ttl_ / 3);
  }
  if (registered_ && absl::IsNotFound(status)) {
    metrics_.HeartbeatFailed(status);
    Ended();
    return clock_.Now();
  }
  return Failed(status);
}

absl::Status Session::Register() {
  v1::RegisterRequest request;
  request.set_cluster(options_.cluster);
  request.set_cluster_id(identity_.cluster_id());
  v1::Node& node = *request.mutable_node();
  node.set_id(identity_.id());
  node.set_address(options_.address);
  node.set_zone(options_.zone);
  node.set_weight(options_.weight);
  node.set_incarnation(identity_.incarnation());
  node.set_capacity_bytes(options_.capacity_bytes);
  const SteadyClock::Point begun = clock_.Now();
  v1::RegisterResponse response;
  KDN_RETURN_IF_ERROR(placement_.Register(request, Clock::Real().Now() + kCallTimeout, response));
  KDN_RETURN_IF_ERROR(Adopt(response.cluster_id()));
  session_ = response.session();
  ttl_ = TtlOf(response.ttl_ms());
  heard_ = begun;
  registered_ = true;
  metrics_.SetRegistered(true);
  spdlog::info("cluster: node {} at {} is registered in cluster '{}' ({:016x}), epoch {}", identity_.id(),
               options_.address, options_.cluster, response.cluster_id(), response.epoch());
  return absl::OkStatus();
}

absl::Status Session::Adopt(uint64_t cluster_id) {
  if (identity_.cluster_id() == cluster_id) return absl::OkStatus();
  if (cluster_id == 0) return FailedPrecondition("placement names no cluster id; is it a kdn-placement?");
  if (identity_.cluster_id() != 0) {
    return FailedPrecondition(
        "this node's data belong to cluster {:016x}, and --placement leads to cluster '{}' ({:016x}); point it to the "
        "other one, or start with an empty disk, or remove {} if the data may be used here",
        identity_.cluster_id(), options_.cluster, cluster_id, MemberFilePath(options_.data_directory));
  }
  if (!options_.data_directory.empty()) {
    KDN_RETURN_IF_ERROR(
        WriteMemberFile(options_.data_directory, {.cluster_id = cluster_id, .cluster = options_.cluster}));
  }
  identity_.set_cluster_id(cluster_id);
  return absl::OkStatus();
}

absl::Status Session::Heartbeat() {
  v1::HeartbeatRequest request;
  request.set_node_id(identity_.id());
  request.set_session(session_);
  *request.mutable_load() = sources_.load();
  const FilledReport filled = sources_.filled();
  request.mutable_filled()->Add(filled.partitions.begin(), filled.partitions.end());
  request.set_filled_epoch(filled.epoch);
  // What comes too late for this session need not be waited for.
  const SteadyClock::Point begun = clock_.Now();
  const absl::Duration timeout = std::min(kCallTimeout, ttl_);
  v1::HeartbeatResponse response;
  KDN_RETURN_IF_ERROR(placement_.Heartbeat(request, Clock::Real().Now() + timeout, response));
  ttl_ = TtlOf(response.ttl_ms());
  heard_ = begun;
  metrics_.SetRegistered(true);
  return absl::OkStatus();
}

void Session::Ended() {
  registered_ = false;
  metrics_.SetRegistered(false);
  // For a while clients may have been told that this node is down, and have stored without it.
  const bool lapsed = absl::FromChrono(clock_.Now() - heard_) >= ttl_;
  if (lapsed) identity_.set_incarnation(Drawn(options_.seed ^ identity_.incarnation(), ++draws_));
  spdlog::warn("cluster: the session is over{}; registering again",
               lapsed ? ", and stores may have been missed" : " though it should not be");
}

SteadyClock::Point Session::Failed(const absl::Status& status) {
  metrics_.HeartbeatFailed(status);
  if (registered_ && absl::FromChrono(clock_.Now() - heard_) >= ttl_) metrics_.SetRegistered(false);
  // Once each, however often it is tried.
  if (status.code() != told_.code()) {
    told_ = status;
    if (absl::IsAlreadyExists(status)) {
      spdlog::error(
          "cluster: this node is not in the cluster: another one that is alive has the id '{}' ({}); give each node "
          "its "
          "own --node-id, or stop the other one",
          identity_.id(), MessageOf(status));
    } else if (absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status)) {
      spdlog::error("cluster: this node is not in the cluster: {}", MessageOf(status));
    } else {
      spdlog::warn("cluster: placement does not answer, this node serves on and tries again: {}", MessageOf(status));
    }
  }
  absl::Duration pause = backoff_.Next();
  if (registered_) pause = std::min(pause, ttl_ / 3);
  return In(pause);
}

void Session::Leave(absl::Time deadline) {
  if (!std::exchange(registered_, false)) return;
  metrics_.SetRegistered(false);
  v1::DeregisterRequest request;
  request.set_node_id(identity_.id());
  request.set_session(session_);
  v1::DeregisterResponse response;
  const absl::Status left = placement_.Deregister(request, deadline, response);
  if (!left.ok()) spdlog::warn("cluster: leaving without a word, placement does not answer: {}", MessageOf(left));
}

}  // namespace kdn
