// What every daemon of KDN does as a process: it logs, says where it listens, takes as many files as it may, and ends
// when it is told to.
//
//   const Logging logging("kdn-placement", {.level = flags.log_level});
//   StopSignals stop;                                   // before any thread but Logging's is started
//   …
//   KDN_RETURN_IF_ERROR(WritePortFile(flags.port_file, {server->endpoint()}));
//   spdlog::info("{}: stopping", stop.Wait());
//
// Thread-safety: for the main thread; what Logging gives may be used by any.
#ifndef KDN_STORAGE_BASE_DAEMON_PROCESS_H_
#define KDN_STORAGE_BASE_DAEMON_PROCESS_H_

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "storage/base/endpoint.h"
#include "storage/base/log_format.h"

namespace spdlog {
class logger;
namespace details {
class thread_pool;
}
}  // namespace spdlog

namespace kdn {

struct LogOptions {
  std::string level = "info";  // one that CheckLogLevel takes
  LogFormat format = LogFormat::kText;
};

// For as long as it lives, spdlog's default logger and gRPC's messages go to standard error, by a thread of their own:
// who logs never waits for a standard error that is slow or blocked. What such a one leaves no room for is dropped, the
// oldest first, and counted. The end waits until what was logged is written.
class Logging {
 public:
  Logging(const std::string& program, const LogOptions& options);
  ~Logging();
  Logging(const Logging&) = delete;
  Logging& operator=(const Logging&) = delete;

  // For a RequestLog; writes at every level but off.
  const std::shared_ptr<spdlog::logger>& fields() const { return fields_; }

  // Lines so far; may be called as long as the process runs.
  std::function<uint64_t()> dropped() const;

 private:
  const LogFormat format_;
  std::shared_ptr<spdlog::details::thread_pool> writer_;
  std::shared_ptr<spdlog::logger> fields_;
};

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
