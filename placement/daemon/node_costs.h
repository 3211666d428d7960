// NodeCosts: what it is expected to cost to fetch from a node, as far as a placement daemon can know.
//
//   milliseconds = latency + bytes ÷ (bytes_per_ms × (1 − busy))
//
// `latency` is a moving average of this daemon's own lookups at the node, 1 ms until there was one. `busy` is the
// node's own word, of its last heartbeat; 0.95 is the most that is believed. `bytes_per_ms` is learned while the node
// is at work, as what it sends divided by how busy that keeps it, a moving average; 500,000 (500 MB/s) until then. Who
// fetches from another zone pays kOtherZoneMs more, and what lies on a disk kDiskMs or kColdDiskMs.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_DAEMON_NODE_COSTS_H_
#define KDN_PLACEMENT_DAEMON_NODE_COSTS_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kdn/v1/placement.pb.h"
#include "storage/base/mutex.h"

namespace kdn {

inline constexpr double kOtherZoneMs = 1;
inline constexpr double kDiskMs = 1;
inline constexpr double kColdDiskMs = 10;

struct NodeCost {
  double latency_ms = 1;
  double bytes_per_ms = 500'000;
  double busy = 0;  // 0 to 0.95

  double Milliseconds(double bytes) const { return latency_ms + bytes / (bytes_per_ms * (1 - busy)); }
};

struct CostTable {
  std::map<std::string, NodeCost, std::less<>> nodes = {};  // by id; what is not there costs as NodeCost{}
  double chunk_bytes = 1 << 20;                             // mean of all chunks that nodes hold
};

class NodeCosts {
 public:
  void Heard(const std::string& id, const v1::NodeLoad& load);
  void LookedUp(const std::string& id, absl::Duration took);
  void Gone(const std::string& id);

  CostTable Table() const;

 private:
  struct Entry {
    NodeCost cost;
    bool timed = false;  // latency_ms was measured
    bool rated = false;  // bytes_per_ms was measured
    double held_bytes = 0;
    double chunks = 0;
  };

  mutable Mutex mu_;
  std::map<std::string, Entry, std::less<>> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_NODE_COSTS_H_
