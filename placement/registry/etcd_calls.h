// EtcdCalls: a registry's calls to etcd, each asked of one member after another until one answers or time is over.
//
// What is repeated: calls that change nothing, and those that may happen twice (a lease that nobody was told of ends by
// itself; to end one twice is to end it). A commit is not one of them. Repeated, it could fail its own conditions,
// which would look as if somebody else had been first, or overwrite what somebody has written in between. So a commit
// goes to another member only where the first certainly did not take it: no connection, or a refusal before the
// proposal (no leader, too many requests, proposal dropped). A commit that was sent and not answered is UNAVAILABLE, or
// DEADLINE_EXCEEDED when the caller's time is over, and says that it may have happened.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_REGISTRY_ETCD_CALLS_H_
#define KDN_PLACEMENT_REGISTRY_ETCD_CALLS_H_

#include <grpcpp/client_context.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/registry/etcd_members.h"
#include "placement/registry/interrupt.h"
#include "placement/registry/registry.h"

namespace kdn {

class EtcdCalls {
 public:
  // `prefix` goes in front of all keys. `members` outlives it.
  EtcdCalls(EtcdMembers& members, std::string prefix, absl::Duration call_timeout)
      : members_(members), prefix_(std::move(prefix)), call_timeout_(call_timeout) {}

  // As of when something was read, by all members' agreement.
  struct Head {
    Revision revision = 0;
    uint64_t cluster = 0;
  };
  absl::StatusOr<Head> ReadHead(absl::Time deadline, Interrupt& interrupt);
  absl::StatusOr<Snapshot> Read(std::string_view prefix, absl::Time deadline, Interrupt& interrupt, Head* head);

  absl::StatusOr<Revision> Commit(const Change& change, absl::Time deadline);
  absl::StatusOr<LeaseId> Grant(int64_t seconds, absl::Time deadline);
  absl::StatusOr<absl::Duration> KeepAlive(LeaseId lease, absl::Time deadline);
  absl::Status Revoke(LeaseId lease, absl::Time deadline);

  EtcdMembers& members() { return members_; }
  absl::Duration call_timeout() const { return call_timeout_; }
  const std::string& prefix() const { return prefix_; }

 private:
  enum class Repeat { kAllowed, kForbidden };
  using Attempt = absl::FunctionRef<grpc::Status(const EtcdMember&, grpc::ClientContext&)>;

  // OK, or the error that etcd answered with, or that of the last try.
  absl::Status Call(absl::Time deadline, Interrupt& interrupt, Repeat repeat, Attempt attempt);
  absl::Status ReadPages(std::string_view prefix, absl::Time deadline, Interrupt& interrupt, Snapshot& snapshot,
                         Head& head);

  EtcdMembers& members_;
  const std::string prefix_;
  const absl::Duration call_timeout_;
};

// The end of the range of keys that begin with `prefix`.
std::string EtcdRangeEnd(std::string prefix);

// `kv` without `prefix`, which its key begins with.
Record RecordFromEtcd(const etcdserverpb::KeyValue& kv, std::string_view prefix);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_ETCD_CALLS_H_
