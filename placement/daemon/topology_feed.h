// TopologyFeed: brings many watchers from whatever topology each of them holds to the newest one. A watcher that is
// slow skips the epochs between. What one watcher is sent is encoded once for all that hold the same epoch.
//
//   feed.Add(watcher);                                           // watcher->Ready() whenever there may be more
//   if (std::optional<TopologyFeed::Update> update = feed.Next(held)) Send(update->bytes);
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_DAEMON_TOPOLOGY_FEED_H_
#define KDN_PLACEMENT_DAEMON_TOPOLOGY_FEED_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "placement/topology/topology.h"
#include "storage/base/mutex.h"

namespace kdn {

class TopologyFeed {
 public:
  class Watcher {
   public:
    virtual ~Watcher() = default;
    // There may be something newer than it has. On any thread; also after Remove, for a moment.
    virtual void Ready() = 0;
    // The feed ends with this.
    virtual void Ended(const absl::Status& why) = 0;
  };

  // A topology that somebody holds; epoch 0: none.
  struct Held {
    uint64_t cluster_id = 0;
    Epoch epoch = 0;
  };
  struct Update {
    grpc::ByteBuffer bytes;  // a kdn.v1.TopologyUpdate
    Held now;                // what it leads to
  };

  // `find` gives past topologies; null where one is not kept any more.
  TopologyFeed(size_t max_watchers, std::function<TopologyPtr(uint64_t cluster_id, Epoch epoch)> find);

  // One that is not newer than the newest is passed over.
  void Publish(const TopologyPtr& topology);
  // Ends all watchers, and those that come from now on.
  void End(const absl::Status& why);

  // RESOURCE_EXHAUSTED: there are too many; or what End said.
  absl::Status Add(const std::shared_ptr<Watcher>& watcher);
  void Remove(const std::shared_ptr<Watcher>& watcher);
  size_t watchers() const;

  // What leads from `held` to the newest topology. Nothing when `held` is that, or there is none yet; also when `held`
  // is of a later epoch, which another daemon has seen first.
  std::optional<Update> Next(const Held& held);
  // The same for a call that wants an answer: `unchanged` in place of nothing. UNAVAILABLE: there is no topology yet.
  absl::StatusOr<grpc::ByteBuffer> Answer(const Held& held);

  // Of the newest, whole; 0 before it was asked for.
  size_t full_bytes() const;

 private:
  const grpc::ByteBuffer& Encoded(const Held& held) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsAhead(const Held& held) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t max_watchers_;
  const std::function<TopologyPtr(uint64_t, Epoch)> find_;
  mutable Mutex mu_;
  TopologyPtr newest_ ABSL_GUARDED_BY(mu_);
  std::map<Epoch, grpc::ByteBuffer> encoded_ ABSL_GUARDED_BY(mu_);  // to the newest, by the epoch it is from; 0: whole
  size_t full_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mu_);
  absl::Status ended_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_TOPOLOGY_FEED_H_
