#include "kdn-client/ctl/run_program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

bool MayRun(const std::string& path) {
  struct stat facts = {};
  return ::stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

// What Ctrl-C and Ctrl-\ do here while the program has the terminal: nothing.
class IgnoredKeys {
 public:
  IgnoredKeys() {
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGINT, &ignore, &interrupt_);
    ::sigaction(SIGQUIT, &ignore, &quit_);
  }
  ~IgnoredKeys() { Restore(); }
  IgnoredKeys(const IgnoredKeys&) = delete;
  IgnoredKeys& operator=(const IgnoredKeys&) = delete;

  // Also for the child, between fork and exec.
  void Restore() const {
    ::sigaction(SIGINT, &interrupt_, nullptr);
    ::sigaction(SIGQUIT, &quit_, nullptr);
  }

 private:
  struct sigaction interrupt_ = {};
  struct sigaction quit_ = {};
};

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (name.empty()) return InvalidArgument("no program is named");
  if (name.find('/') != std::string::npos) {
    if (MayRun(name)) return name;
    std::error_code error;
    if (!std::filesystem::exists(name, error)) return NotFound("{}: there is no such program", name);
    return InvalidArgument("{} is no program that may be run; name another, or make it executable", name);
  }
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    const std::string beside = (self.parent_path() / name).string();
    if (MayRun(beside)) return beside;
  }
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string in_folder = (folder.empty() ? "." : folder) + "/" + name;
    if (MayRun(in_folder)) return in_folder;
  }
  return NotFound("there is no program {}, neither beside kdnctl nor in PATH", name);
}

absl::StatusOr<int> RunProgram(const std::vector<std::string>& argv) {
  if (argv.empty()) return InvalidArgument("no program is named");
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  // It closes when exec succeeds, and carries errno when it does not.
  int failure[2];
  if (::pipe2(failure, O_CLOEXEC) != 0) return Unavailable("pipe: {}", std::strerror(errno));
  const IgnoredKeys keys;
  const pid_t parent = ::getpid();
  const pid_t id = ::fork();
  if (id == 0) {  // only async-signal-safe calls from here to exec
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);
    keys.Restore();
    ::execv(arguments[0], arguments.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t written = ::write(failure[1], &error, sizeof error);
    ::_exit(127);
  }
  ::close(failure[1]);
  int error = id < 0 ? errno : 0;
  ssize_t got = 0;
  if (id > 0) {
    do got = ::read(failure[0], &error, sizeof error);
    while (got < 0 && errno == EINTR);
  }
  ::close(failure[0]);
  if (id < 0) return Unavailable("fork: {}", std::strerror(error));
  int status = 0;
  while (::waitpid(id, &status, 0) < 0) {
    if (errno != EINTR) return Unavailable("waiting for {}: {}", argv[0], std::strerror(errno));
  }
  if (got == static_cast<ssize_t>(sizeof error)) return Unavailable("cannot run {}: {}", argv[0], std::strerror(error));
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace kdn::ctl
