#include "placement/daemon/topology_feed.h"

#include <grpcpp/support/slice.h>

#include <utility>
#include <vector>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

grpc::ByteBuffer Encode(const v1::TopologyUpdate& update) {
  const grpc::Slice slice(update.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

TopologyFeed::TopologyFeed(size_t max_watchers, std::function<TopologyPtr(uint64_t, Epoch)> find)
    : max_watchers_(max_watchers), find_(std::move(find)) {}

void TopologyFeed::Publish(const TopologyPtr& topology) {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(mu_);
    if (newest_ != nullptr && topology->epoch() <= newest_->epoch()) return;
    newest_ = topology;
    encoded_.clear();
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) watcher->Ready();
}

void TopologyFeed::End(const absl::Status& why) {
  std::set<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(mu_);
    ended_ = why;
    watchers.swap(watchers_);
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) watcher->Ended(why);
}

absl::Status TopologyFeed::Add(const std::shared_ptr<Watcher>& watcher) {
  MutexLock lock(mu_);
  if (!ended_.ok()) return ended_;
  if (watchers_.size() >= max_watchers_) {
    return ResourceExhausted(
        "{} watchers are being served already; ask another placement daemon, or raise --max-watchers",
        watchers_.size());
  }
  watchers_.insert(watcher);
  return absl::OkStatus();
}

void TopologyFeed::Remove(const std::shared_ptr<Watcher>& watcher) {
  MutexLock lock(mu_);
  watchers_.erase(watcher);
}

size_t TopologyFeed::watchers() const {
  MutexLock lock(mu_);
  return watchers_.size();
}

bool TopologyFeed::IsAhead(const Held& held) const {
  return held.epoch >= newest_->epoch() && held.cluster_id == newest_->parts().cluster_id;
}

std::optional<TopologyFeed::Update> TopologyFeed::Next(const Held& held) {
  MutexLock lock(mu_);
  if (newest_ == nullptr || IsAhead(held)) return std::nullopt;
  return Update{.bytes = Encoded(held), .now = {.cluster_id = newest_->parts().cluster_id, .epoch = newest_->epoch()}};
}

absl::StatusOr<grpc::ByteBuffer> TopologyFeed::Answer(const Held& held) {
  MutexLock lock(mu_);
  if (newest_ == nullptr) return Unavailable("this daemon has no topology yet; ask another, or try again");
  if (!IsAhead(held)) return Encoded(held);
  v1::TopologyUpdate unchanged;
  unchanged.set_unchanged(true);
  return Encode(unchanged);
}

const grpc::ByteBuffer& TopologyFeed::Encoded(const Held& held) {
  TopologyPtr from = held.epoch == 0 ? nullptr : find_(held.cluster_id, held.epoch);
  const auto [at, is_new] = encoded_.try_emplace(from == nullptr ? 0 : held.epoch);
  if (is_new) {
    at->second = Encode(MakeUpdate(from.get(), *newest_));
    if (from == nullptr) full_bytes_ = at->second.Length();
  }
  return at->second;
}

size_t TopologyFeed::full_bytes() const {
  MutexLock lock(mu_);
  return full_bytes_;
}

}  // namespace kdn
