// The flags by which every daemon is told what to log, and how.
//
//   LogFlags log;
//   DeclareLogFlags(app, log);                          // --log-level, --log-format, --log-requests, --slow-request
//   …
//   KDN_ASSIGN_OR_RETURN(const LogSettings settings, CheckLogFlags(log));
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_BASE_LOG_FLAGS_H_
#define KDN_STORAGE_BASE_LOG_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/base/daemon_process.h"
#include "storage/base/request_log.h"

namespace CLI {
class App;
}

namespace kdn {

struct LogFlags {
  std::string level = "info";
  std::string format = "text";
  std::vector<std::string> requests = {"off"};
  std::string slow_request = "1s";
};
// `flags` outlives the reading of the command line.
void DeclareLogFlags(CLI::App& app, LogFlags& flags);

struct LogSettings {
  LogOptions log;
  RequestFilter requests;
};
// INVALID_ARGUMENT names the flag.
absl::StatusOr<LogSettings> CheckLogFlags(const LogFlags& flags);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_LOG_FLAGS_H_
