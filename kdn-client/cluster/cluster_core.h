// ClusterCore: what the calls of one ClusterTransport share.
//
// Thread-safety: all members may be used from any thread.
#ifndef KDN_KDN_CLIENT_CLUSTER_CLUSTER_CORE_H_
#define KDN_KDN_CLIENT_CLUSTER_CLUSTER_CORE_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kdn-client/async/first_answer.h"
#include "kdn-client/async/race.h"
#include "kdn-client/async/task_threads.h"
#include "kdn-client/cluster/cluster_transport.h"
#include "kdn-client/cluster/node_pool.h"
#include "kdn-client/cluster/recent_lookups.h"

namespace kdn {

// The same, and shares nothing with `status`: for another thread. (Abseil counts references where ThreadSanitizer
// cannot see it.)
inline absl::Status Apart(const absl::Status& status) { return absl::Status(status.code(), status.message()); }

using TopologyViewPtr = std::shared_ptr<const TopologyView>;

struct ClusterCore {
  ClusterCore(std::shared_ptr<TopologySource> topology, const ClusterTransportOptions& given);

  // The nodes of the newest topology. UNAVAILABLE: none is known.
  absl::StatusOr<TopologyViewPtr> View();

  bool Hedges() const { return options.hedge.budget > 0; }
  // Of a race that begins with `first`, whose calls are measured in `recent`. Earns the race its part of a hedge.
  Race::Rules RulesFor(const FirstAnswers& recent, const std::shared_ptr<ClusterNode>& first);
  // Notes how a call to a node ended.
  void Ended(ClusterNode::Call& call, const absl::Status& status, FirstAnswers& recent);

  const ClusterTransportOptions options;
  const std::shared_ptr<TopologySource> source;
  NodePool pool;
  FirstAnswers lookups;
  FirstAnswers fetches;
  TokenBucket budget;  // of hedges
  RecentLookups recent_lookups;
  struct {
    std::atomic<uint64_t> lookups{0};
    std::atomic<uint64_t> fetches{0};
    std::atomic<uint64_t> node_calls{0};
    std::atomic<uint64_t> second_reader{0};
    std::atomic<uint64_t> failed_over{0};
  } counts;
  TaskThreads helpers;  // the parts of one call, which wait for each other
  // What may go on when its call is over. Last: what runs there uses what is above, helpers too, and helpers that
  // outlive a call begin nothing here.
  TaskThreads attempts;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_CLUSTER_CORE_H_
