// What every daemon of KDN does as a process: it logs, says where it listens, takes as many files as it may, and ends
// when it is told to.
//
//   StartLogging("kdn-placement", flags.log_level);
//   StopSignals stop;                                   // before any thread is started
//   …
//   KDN_RETURN_IF_ERROR(WritePortFile(flags.port_file, {server->endpoint()}));
//   spdlog::info("{}: stopping", stop.Wait());
//
// Thread-safety: for the main thread.
#ifndef KDN_STORAGE_BASE_DAEMON_PROCESS_H_
#define KDN_STORAGE_BASE_DAEMON_PROCESS_H_

#include <signal.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "storage/base/endpoint.h"

namespace kdn {

// To standard error, gRPC's messages too. `level` is one that CheckLogLevel takes.
void StartLogging(const std::string& program, const std::string& level);

// One address a line. The file is complete or not there: whoever waits for it may read it at once. UNAVAILABLE.
absl::Status WritePortFile(const std::string& path, const std::vector<Endpoint>& endpoints);

// As many as the system lets this process have, since every connection is one; warns when that is less than what the
// flag `name` allows.
void RaiseFileLimit(std::string_view name, size_t connections);

// SIGTERM and SIGINT, kept from ending the process until somebody waits for them. SIGPIPE is ignored.
class StopSignals {
 public:
  StopSignals();
  // Its name. A second signal then ends the process at once.
  std::string_view Wait();

 private:
  sigset_t signals_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_DAEMON_PROCESS_H_
