// ChildProcess: a program that a test, a benchmark or the demo starts, and that never outlives it.
//
//   absl::StatusOr<ChildProcess> node = ChildProcess::Start({node_path, "--listen", "127.0.0.1:0", "--port-file",
//   file}); KDN_ASSIGN_OR_RETURN(std::string ports, WaitForFile(file, absl::Seconds(10), *node)); node->Kill(); // kill
//   -9, as a crash would
//
// The destructor ends the child by its id (SIGTERM, then SIGKILL after five seconds). Should this process die itself,
// the kernel ends the child.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_PROCESS_CHILD_PROCESS_H_
#define KDN_INTEGRATION_PROCESS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kdn {

class ChildProcess {
 public:
  // Starts argv[0] (a path, or a name in PATH). Standard output and error go to `output` (appended), or nowhere when it
  // is empty. NOT_FOUND when there is no such program.
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& argv, const std::string& output = "");

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess() { Stop(absl::Seconds(5)); }

  pid_t id() const { return id_; }
  bool Running();

  // SIGTERM, and SIGKILL when it has not ended after `grace`. Returns the exit code, or 128 + the signal that ended it.
  int Stop(absl::Duration grace);
  // SIGKILL.
  void Kill();
  // SIGSTOP, and waits until the child has stopped; SIGCONT.
  void Pause();
  void Resume();
  // Waits for the child to end by itself. DEADLINE_EXCEEDED when it has not after `timeout`.
  absl::StatusOr<int> Wait(absl::Duration timeout);

 private:
  explicit ChildProcess(pid_t id) : id_(id) {}

  pid_t id_ = -1;      // -1: there is none, or it has been waited for
  int exit_code_ = 0;  // once waited for
};

// The content of `path` once it exists and ends in a newline. UNAVAILABLE when `writer` ended before,
// DEADLINE_EXCEEDED.
absl::StatusOr<std::string> WaitForFile(const std::filesystem::path& path, absl::Duration timeout,
                                        ChildProcess& writer);

// A new directory under the system's temporary directory, removed with all it holds by the destructor.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& prefix);
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_PROCESS_CHILD_PROCESS_H_
