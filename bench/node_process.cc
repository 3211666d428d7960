#include "bench/node_process.h"

#include <filesystem>
#include <sstream>
#include <vector>

#include "absl/time/time.h"
#include "storage/base/status.h"

namespace kdn::bench {

std::string NodeProcess::DefaultProgram() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../kdn-node/kdn-node").string();
}

absl::StatusOr<NodeProcess> NodeProcess::Start(const std::string& program, const ServerPlace& place,
                                               const NodeStorage& storage) {
  const TemporaryDirectory directory("kdn-bench-node-");
  const std::string port_file = directory.path() / "port";
  const Endpoint listen{.host = place.host};
  std::vector<std::string> command = {program,       "--listen", listen.ToString(), "--metrics-listen",  "",
                                      "--port-file", port_file,  "--memory-bytes",  storage.memory_bytes};
  if (!storage.disk_path.empty()) {
    command.insert(command.end(), {"--disk-path", storage.disk_path, "--disk-bytes", "8GiB"});
  }
  if (!listen.IsLoopback()) command.push_back("--insecure-remote");
  KDN_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Start(place.CommandLine(command)));
  KDN_ASSIGN_OR_RETURN(const std::string ports, WaitForFile(port_file, absl::Seconds(30), process));
  std::string first;
  std::istringstream(ports) >> first;
  KDN_ASSIGN_OR_RETURN(Endpoint endpoint, ParseEndpoint(first));
  return NodeProcess(std::move(process), std::move(endpoint));
}

}  // namespace kdn::bench
