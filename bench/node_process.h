// NodeProcess: a kdn-node of a benchmark, memory only unless told otherwise, ended by the destructor.
//
//   KDN_ASSIGN_OR_RETURN(const NodeProcess node, NodeProcess::Start(options.node));
//   MakeRemoteTransport(node.endpoint().ToString());
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_NODE_PROCESS_H_
#define KDN_BENCH_NODE_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "bench/server_place.h"
#include "integration/process/child_process.h"
#include "storage/base/endpoint.h"

namespace kdn::bench {

struct NodeStorage {
  std::string memory_bytes = "4GiB";
  std::string disk_path;  // empty: no disk; removed by whoever made it
};

class NodeProcess {
 public:
  // The kdn-node that was built together with this program.
  static std::string DefaultProgram();

  // UNAVAILABLE or DEADLINE_EXCEEDED when it does not come up.
  static absl::StatusOr<NodeProcess> Start(const std::string& program, const ServerPlace& place = {},
                                           const NodeStorage& storage = {});

  const Endpoint& endpoint() const { return endpoint_; }
  pid_t id() const { return process_.id(); }

 private:
  NodeProcess(ChildProcess process, Endpoint endpoint) : process_(std::move(process)), endpoint_(std::move(endpoint)) {}

  ChildProcess process_;
  Endpoint endpoint_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_NODE_PROCESS_H_
