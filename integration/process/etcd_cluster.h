// EtcdCluster: an etcd of one member or more, as processes of this machine, for tests.
//
//   absl::StatusOr<std::unique_ptr<EtcdCluster>> etcd = EtcdCluster::Start(3);
//   ConnectEtcd({.endpoints = (*etcd)->endpoints()});
//   (*etcd)->Kill(*(*etcd)->Leader(absl::Seconds(20)));
//
// Members listen on loopback, on ports that were free when they were chosen, and keep their data in a temporary
// directory. `etcd` is looked for in PATH. All members end with the cluster, by their ids.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_PROCESS_ETCD_CLUSTER_H_
#define KDN_INTEGRATION_PROCESS_ETCD_CLUSTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "integration/process/child_process.h"

namespace kdn {

class EtcdCluster {
 public:
  // Returns once the cluster serves. NOT_FOUND: etcd is not installed; UNAVAILABLE with what it last wrote.
  static absl::StatusOr<std::unique_ptr<EtcdCluster>> Start(size_t members);
  EtcdCluster(const EtcdCluster&) = delete;
  EtcdCluster& operator=(const EtcdCluster&) = delete;
  ~EtcdCluster();

  size_t size() const { return members_.size(); }
  // HOST:PORT for clients.
  std::vector<std::string> endpoints() const;
  const std::string& endpoint(size_t member) const;

  void Kill(size_t member);  // SIGKILL
  void Pause(size_t member);
  void Resume(size_t member);
  // Starts a member that was killed, on the same ports and with the data that it had. It may not serve yet.
  absl::Status Restart(size_t member);
  // Forgets the data of a member that was killed. A cluster of one then begins its history anew, under the same
  // cluster id; with `token`, under another one.
  void Wipe(size_t member, const std::string& token = "");

  // Once the members that run can read by agreement. DEADLINE_EXCEEDED.
  absl::Status WaitUntilServing(absl::Duration timeout);
  // The member that leads, and that the others follow. DEADLINE_EXCEEDED: none does.
  absl::StatusOr<size_t> Leader(absl::Duration timeout);
  // Forgets all history before the present revision, which is returned.
  absl::StatusOr<int64_t> Compact();

 private:
  struct Member;

  explicit EtcdCluster(size_t members);
  absl::Status Launch(size_t member);
  absl::Status StartAll();
  // What the member wrote last.
  std::string LastWords(size_t member) const;

  TemporaryDirectory directory_{"kdn-etcd-"};
  std::string token_;
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_PROCESS_ETCD_CLUSTER_H_
