// NodePool: the nodes of a cluster as a client knows them: how each is reached, how quick it was lately, how many calls
// to it are under way, whether it failed a moment ago.
//
//   NodePool pool(options);
//   std::shared_ptr<const TopologyView> view = pool.View(topology);   // cheap while the topology is the same
//   ClusterNode& node = *view->nodes[slot].node;
//   ClusterNode::Call call(node);
//   absl::StatusOr<…> found = node.transport().Lookup(…);
//   call.Ended(found.status());
//
// Thread-safety: all methods may be called from any thread; a Call is used by one at a time.
#ifndef KDN_KDN_CLIENT_CLUSTER_NODE_POOL_H_
#define KDN_KDN_CLIENT_CLUSTER_NODE_POOL_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-client/transport.h"
#include "placement/topology/topology.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class ClusterNode {
 public:
  using Connect = std::function<std::shared_ptr<Transport>(const std::string& address)>;
  ClusterNode(std::string address, Connect connect, absl::Duration rest)
      : address_(std::move(address)), connect_(std::move(connect)), rest_(rest) {}

  const std::string& address() const { return address_; }
  // Made on first use.
  Transport& transport();

  // Whether it failed a moment ago, and had better be asked last.
  bool Rests(SteadyClock::Point now) const {
    return now.time_since_epoch() < std::chrono::nanoseconds(rests_until_.load(std::memory_order_relaxed));
  }
  // What a call is expected to cost, to be compared with that of other nodes: the time to the first answer, lately,
  // times the calls that would be under way. What was measured long ago counts less and less, so that a node that was
  // slow is tried again.
  double Cost(SteadyClock::Point now) const;
  // Calls wait for it, and it has answered none for `time`.
  bool SilentFor(absl::Duration time, SteadyClock::Point now) const;

  // How a call ended: a node that failed rests.
  void Note(const absl::Status& ended);

  // It had better be asked last for so long.
  void Rest(absl::Duration duration);

  // A call that reads from the node, from its beginning to its end.
  class Call {
   public:
    explicit Call(ClusterNode& node);
    // Ended with CANCELLED, unless it was said how.
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // The first answer is there.
    void Answered();
    void Ended(const absl::Status& status);

    absl::Duration first_answer() const { return first_answer_; }

   private:
    ClusterNode& node_;
    const SteadyClock::Point begun_;
    absl::Duration first_answer_ = absl::InfiniteDuration();
    bool ended_ = false;
  };

 private:
  void NoteAnswer(absl::Duration took, bool in_full, SteadyClock::Point now);

  const std::string address_;
  const Connect connect_;
  const absl::Duration rest_;
  std::atomic<uint32_t> under_way_{0};
  std::atomic<int64_t> rests_until_{0};   // steady nanoseconds
  std::atomic<int64_t> silent_since_{0};  // steady nanoseconds: the last answer, or the first call after it
  mutable Mutex mu_;
  double seconds_ ABSL_GUARDED_BY(mu_) = 0;  // to the first answer, smoothed; 0: never measured
  SteadyClock::Point measured_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<Transport> transport_ ABSL_GUARDED_BY(mu_);
};

// A topology with the nodes that it speaks of.
struct TopologyView {
  struct Entry {
    std::shared_ptr<ClusterNode> node;  // null: there is none in this slot
    bool near = false;                  // in the zone of this process
  };

  TopologyPtr topology;
  std::vector<Entry> nodes;  // by slot

  ClusterNode& NodeAt(NodeSlot slot) const { return *nodes[slot].node; }
  // For messages: "node b (10.0.0.2:7401)".
  std::string NameOf(NodeSlot slot) const;
};

class NodePool {
 public:
  struct Options {
    std::string zone = {};
    ClusterNode::Connect connect = {};
    absl::Duration rest = absl::Seconds(1);
  };
  explicit NodePool(Options options) : options_(std::move(options)) {}

  // Nodes that are in `topology` no longer are forgotten; calls to them that are under way end in their own time.
  std::shared_ptr<const TopologyView> View(const TopologyPtr& topology);

 private:
  const Options options_;
  Mutex mu_;
  std::shared_ptr<const TopologyView> view_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, std::shared_ptr<ClusterNode>> nodes_ ABSL_GUARDED_BY(mu_);  // by address
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_NODE_POOL_H_
