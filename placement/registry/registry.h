// Registry: the small, consistent store in which a cluster keeps what all its placement daemons must agree on: the
// topology, who is alive, and how busy. Records by key, with revisions, conditional commits, leases and watches, as
// etcd has them; three backends keep one contract.
//
//   std::unique_ptr<Registry> registry = MakeMemoryRegistry();                     // tests
//   absl::StatusOr<std::unique_ptr<Registry>> registry = OpenEmbeddedRegistry({.path = "/var/lib/kdn-placement"});
//   absl::StatusOr<std::unique_ptr<Registry>> registry = ConnectEtcd({.endpoints = {"10.0.0.1:2379",
//   "10.0.0.2:2379"}});
//
//   absl::StatusOr<Snapshot> all = (*registry)->Read("", deadline);
//   Change change;
//   change.conditions.push_back({.key = "topology", .revision = all->RevisionOf("topology")});
//   change.puts.push_back({.key = "topology", .value = bytes});
//   absl::StatusOr<Revision> at = (*registry)->Commit(change, deadline);           // ABORTED: somebody was first
//
// Revisions grow with every commit, and are the same for all who look at one registry. A record's revision is that of
// the commit that wrote it last.
//
// Thread-safety: all methods may be called from any thread. Watchers are called on threads of the registry, one call at
// a time for each watch.
#ifndef KDN_PLACEMENT_REGISTRY_REGISTRY_H_
#define KDN_PLACEMENT_REGISTRY_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/steady_clock.h"

namespace kdn {

using Revision = int64_t;  // 0: before everything; no record has it
using LeaseId = int64_t;   // 0: no lease

// Limits that every backend keeps; what is beyond them is INVALID_ARGUMENT.
inline constexpr size_t kMaxRegistryKeyBytes = 512;
inline constexpr size_t kMaxRegistryValueBytes = size_t{1} << 20;
inline constexpr size_t kMaxRegistryChangeRecords = 128;                  // conditions, puts and deletes of one commit
inline constexpr size_t kMaxRegistryChangeBytes = (size_t{5} << 20) / 4;  // their keys and values together
inline constexpr absl::Duration kMaxRegistryLeaseTtl = absl::Hours(24 * 365);

struct Record {
  std::string key = {};
  std::string value = {};
  Revision revision = 0;  // of the commit that wrote it
  LeaseId lease = 0;      // gone with this lease
};

struct Snapshot {
  std::vector<Record> records = {};  // by key
  Revision revision = 0;             // of the registry, as of which they are

  // The record's, or 0 when there is none.
  Revision RevisionOf(std::string_view key) const;
  const Record* Find(std::string_view key) const;
};

// All or nothing.
struct Change {
  struct Condition {
    std::string key = {};
    Revision revision = 0;  // that the record must have; 0: there must be none
  };
  struct Put {
    std::string key = {};
    std::string value = {};
    LeaseId lease = 0;
  };
  std::vector<Condition> conditions = {};
  std::vector<Put> puts = {};
  std::vector<std::string> deletes = {};  // what is not there is not an error
};

struct RegistryEvent {
  bool deleted = false;  // by a commit, or because its lease is over
  Record record = {};    // of a deleted one: key and revision (of the deletion) only
};

class RegistryWatcher {
 public:
  virtual ~RegistryWatcher() = default;
  // Everything from `snapshot.revision` on will come by OnEvents; forget what was known before. The first call of every
  // watch (but for OnLost), and called again whenever events were lost (the registry was away for long and has
  // compacted them).
  virtual void OnSnapshot(const Snapshot& snapshot) = 0;
  // All events of one commit or more, in the order of their revisions, none left out, none twice.
  virtual void OnEvents(const std::vector<RegistryEvent>& events, Revision revision) = 0;
  // The registry cannot be reached at the moment (UNAVAILABLE), and is tried again. What was told before may be stale,
  // until OnSnapshot or OnEvents is called again; when nothing has happened meanwhile, OnEvents comes without events.
  virtual void OnLost(const absl::Status& why) = 0;
};

// Ends the watch when destroyed; no call to the watcher is running or will come from then on. So it must not be
// destroyed from within such a call, nor after its registry.
class RegistryWatch {
 public:
  virtual ~RegistryWatch() = default;
};

class Registry {
 public:
  virtual ~Registry() = default;

  // All records whose keys begin with `prefix`. UNAVAILABLE, DEADLINE_EXCEEDED.
  virtual absl::StatusOr<Snapshot> Read(std::string_view prefix, absl::Time deadline) = 0;

  // The revision of the commit. ABORTED naming the key whose condition does not hold; nothing is changed then.
  // NOT_FOUND: a lease is over. INVALID_ARGUMENT: over the limits, an empty key, or one key written twice.
  // UNAVAILABLE, DEADLINE_EXCEEDED: it may or may not have happened.
  virtual absl::StatusOr<Revision> Commit(const Change& change, absl::Time deadline) = 0;

  // A lease that is over `ttl` (whole seconds, at least 1) after the last KeepAlive. Records under it go with it. etcd
  // may give more than was asked: at least one and a half of its election timeouts. INVALID_ARGUMENT: not such a time.
  virtual absl::StatusOr<LeaseId> Grant(absl::Duration ttl, absl::Time deadline) = 0;
  // Renews; returns the time that it now has. NOT_FOUND: it is over.
  virtual absl::StatusOr<absl::Duration> KeepAlive(LeaseId lease, absl::Time deadline) = 0;
  // Ends it, and its records. NOT_FOUND: it is over already.
  virtual absl::Status Revoke(LeaseId lease, absl::Time deadline) = 0;

  // Tells `watcher`, which outlives the watch, of all records that begin with `prefix`, now and as they change. Never
  // fails: while the registry is away it tries again.
  virtual std::unique_ptr<RegistryWatch> Watch(std::string_view prefix, RegistryWatcher& watcher) = 0;

  // For people: "embedded in /var/lib/kdn-placement", "etcd at 10.0.0.1:2379, 10.0.0.2:2379".
  virtual std::string Describe() const = 0;
};

// In memory: the twin for tests. `clock` outlives it; leases end by it.
std::unique_ptr<Registry> MakeMemoryRegistry(const SteadyClock& clock = SteadyClock::Real());

struct EmbeddedRegistryOptions {
  std::string path = {};  // directory; made when absent; one process at a time
};
// In RocksDB, for one placement daemon. Every commit is synced before it is acknowledged. After a restart leases start
// anew with their whole ttl, so that nobody is thought dead because the daemon was away. UNAVAILABLE or
// FAILED_PRECONDITION naming the path: it cannot be opened, another process has it, or it is not a registry of ours;
// DATA_LOSS: a record in it is damaged.
absl::StatusOr<std::unique_ptr<Registry>> OpenEmbeddedRegistry(const EmbeddedRegistryOptions& options,
                                                               const SteadyClock& clock = SteadyClock::Real());

struct EtcdOptions {
  std::vector<std::string> endpoints = {};         // HOST:PORT of the members, at least one
  std::string prefix = "/kdn/";                    // of all keys; begins and ends with '/'
  absl::Duration call_timeout = absl::Seconds(2);  // of one try at one member, within the caller's deadline
};
// etcd v3 by its gRPC API. Connects lazily; members that fail are followed by the next. INVALID_ARGUMENT: no endpoint,
// or one that is not HOST:PORT, or a bad prefix.
absl::StatusOr<std::unique_ptr<Registry>> ConnectEtcd(const EtcdOptions& options);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_REGISTRY_H_
