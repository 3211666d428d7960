// Session: keeps placement knowing that this node is there: registers it, tells of its load and of what it has filled,
// and takes it out when it stops. While placement is away it goes on trying; the node serves all the same.
//
//   Session session(options, identity, *placement, metrics, {.load = …, .filled = …});
//   StepThread thread([&] { return session.Step(); });
//   …
//   session.Leave(deadline);
//
// Thread-safety: Step is for one thread; Leave for any, once Step is not called any more.
#ifndef KDN_KDN_NODE_CLUSTER_SESSION_H_
#define KDN_KDN_NODE_CLUSTER_SESSION_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-node/cluster/filler.h"
#include "kdn-node/cluster/member_metrics.h"
#include "kdn-node/cluster/member_view.h"
#include "kdn/v1/placement.pb.h"
#include "placement/remote/placement_channel.h"
#include "storage/base/backoff.h"
#include "storage/base/steady_clock.h"

namespace kdn {

struct SessionOptions {
  std::string cluster = "kdn";  // by name
  std::string address;          // HOST:PORT where others reach this node
  std::string zone;
  uint32_t weight = 1;
  uint64_t capacity_bytes = 0;
  std::string data_directory;  // of the first disk, where the cluster is written down; empty: there is none
  uint64_t seed = 0;           // of random waits and incarnations
};

class Session {
 public:
  struct Sources {
    std::function<v1::NodeLoad()> load;
    std::function<FilledReport()> filled;
  };

  // All of them outlive this.
  Session(const SessionOptions& options, MemberIdentity& identity, PlacementChannel& placement, MemberMetrics& metrics,
          Sources sources, const SteadyClock& clock = SteadyClock::Real());

  // One call to placement; returns when to be called again.
  SteadyClock::Point Step();

  // Ends the session, if there is one: clients are told that this node is down, before they find out.
  void Leave(absl::Time deadline);

  bool registered() const { return registered_; }

 private:
  absl::Status Register();
  // What a first answer says of the cluster is kept, beside the data.
  absl::Status Adopt(uint64_t cluster_id);
  absl::Status Heartbeat();
  void Ended();
  SteadyClock::Point Failed(const absl::Status& status);
  SteadyClock::Point In(absl::Duration duration) const { return clock_.Now() + absl::ToChronoNanoseconds(duration); }

  const SessionOptions options_;
  MemberIdentity& identity_;
  PlacementChannel& placement_;
  MemberMetrics& metrics_;
  const Sources sources_;
  const SteadyClock& clock_;
  Backoff backoff_;
  uint64_t draws_ = 0;
  bool registered_ = false;
  uint64_t session_ = 0;
  absl::Duration ttl_;
  SteadyClock::Point heard_;  // when placement last said that the session is alive
  absl::Status told_;         // the failure that was logged last
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_SESSION_H_
