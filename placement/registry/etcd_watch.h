// EtcdWatch: a watch on an etcd registry: a thread that follows etcd's history from one revision to the next, over
// whichever member works.
//
// It reads a snapshot, then streams from the revision after it. When the stream breaks, or says nothing for as long as
// a call may take though it was asked, it goes on from the next revision at the next member, so nothing is lost or told
// twice. It begins anew with a snapshot when etcd has compacted what it needs, when etcd's revision has gone back (a
// backup was restored), and when another cluster answers. A backup that has been written to past the revision that was
// reached cannot be told from the history that it replaced.
//
// Thread-safety: as RegistryWatch.
#ifndef KDN_PLACEMENT_REGISTRY_ETCD_WATCH_H_
#define KDN_PLACEMENT_REGISTRY_ETCD_WATCH_H_

#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "placement/registry/etcd_calls.h"
#include "placement/registry/etcd_watch_stream.h"
#include "placement/registry/interrupt.h"
#include "placement/registry/registry.h"

namespace kdn {

class EtcdWatch final : public RegistryWatch {
 public:
  EtcdWatch(EtcdCalls& calls, std::string_view prefix, RegistryWatcher& watcher);
  ~EtcdWatch() override;

 private:
  void Run();
  // Returns why it cannot follow any more.
  absl::Status Follow();
  absl::Status CatchUp();
  absl::Status ReadSnapshot(absl::Time deadline);
  absl::Status Take(const etcdserverpb::WatchResponse& message, const EtcdMember& member);
  absl::Status TakeEvents(const etcdserverpb::WatchResponse& message);
  void TellLost(const absl::Status& why);

  EtcdCalls& calls_;
  const std::string prefix_;  // without the registry's
  RegistryWatcher& watcher_;
  Interrupt interrupt_;

  // The thread's.
  Revision next_ = 0;                     // that was not told yet; 0: a snapshot is needed
  uint64_t cluster_ = 0;                  // of which next_ is a revision
  bool lost_ = false;                     // and the watcher knows
  bool followed_ = false;                 // the last stream was set up
  size_t failures_ = 0;                   // since one was
  std::vector<RegistryEvent> fragments_;  // of a message that is not complete
  size_t fragment_bytes_ = 0;

  std::thread thread_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_ETCD_WATCH_H_
