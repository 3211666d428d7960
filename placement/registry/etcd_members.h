// EtcdMembers: the members of one etcd cluster, and which of them is asked.
//
//   EtcdMember& member = members.Current();
//   if (absl::Status away = members.Prepare(member, deadline, interrupt); !away.ok()) members.Failed(member);
//
// All calls go to one member for as long as it works, then to the next in the list. Connections to all of them are kept
// up by a thread, so that the next one is there when it is needed.
//
// Members of two clusters in one list would mean two histories, so a member is asked for its cluster before anything
// else goes over a new connection. The first one heard decides; members of others are left alone. Once all members of
// the list belong to one other cluster, that is the new one: somebody made it anew.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_REGISTRY_ETCD_MEMBERS_H_
#define KDN_PLACEMENT_REGISTRY_ETCD_MEMBERS_H_

#include <grpcpp/channel.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "etcd/etcd.grpc.pb.h"
#include "placement/registry/interrupt.h"
#include "storage/base/mutex.h"

namespace kdn {

struct EtcdMember {
  size_t index = 0;  // in the list
  std::string endpoint = {};
  std::shared_ptr<grpc::Channel> channel = {};
  std::unique_ptr<etcdserverpb::KV::Stub> kv = {};
  std::unique_ptr<etcdserverpb::Lease::Stub> lease = {};
  std::unique_ptr<etcdserverpb::Watch::Stub> watch = {};
};

class EtcdMembers {
 public:
  explicit EtcdMembers(const std::vector<std::string>& endpoints);
  ~EtcdMembers();

  size_t size() const { return members_.size(); }
  const EtcdMember& Current() const ABSL_LOCKS_EXCLUDED(mu_);
  // Connects where that is needed. UNAVAILABLE, DEADLINE_EXCEEDED: it is away; FAILED_PRECONDITION: it belongs to
  // another cluster; CANCELLED.
  absl::Status Prepare(const EtcdMember& member, absl::Time deadline, Interrupt& interrupt) ABSL_LOCKS_EXCLUDED(mu_);
  // The next one is asked from now on, unless this one is not asked any more.
  void Failed(const EtcdMember& member) ABSL_LOCKS_EXCLUDED(mu_);

  // "10.0.0.1:2379, 10.0.0.2:2379".
  const std::string& names() const { return names_; }

 private:
  struct Known {
    bool confirmed = false;  // this connection leads to a member of the cluster
    uint64_t cluster = 0;    // last heard from it
  };

  absl::Status Connect(const EtcdMember& member, absl::Time deadline, Interrupt& interrupt) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Confirm(const EtcdMember& member, uint64_t cluster) ABSL_LOCKS_EXCLUDED(mu_);
  void KeepConnected();

  std::vector<EtcdMember> members_;  // as they were made
  std::string names_;
  mutable Mutex mu_;
  size_t current_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t cluster_ ABSL_GUARDED_BY(mu_) = 0;  // 0: none heard yet
  std::vector<Known> known_ ABSL_GUARDED_BY(mu_);

  std::atomic<bool> stopping_ = false;
  grpc::CompletionQueue changes_;  // of connections
  std::thread connector_;
};

// Has `context` refused by a member that has no leader, and ended by `deadline`.
void PrepareEtcdCall(grpc::ClientContext& context, absl::Time deadline);

// What etcd said, by the code and the words that it used, with the member's name.
absl::Status EtcdError(const EtcdMember& member, const grpc::Status& status);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_ETCD_MEMBERS_H_
