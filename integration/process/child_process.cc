#include "integration/process/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/time/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);

int ExitCodeOf(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& argv, const std::string& output) {
  if (argv.empty()) return InvalidArgument("ChildProcess: no program given");
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  // The pipe closes when exec succeeds, and carries errno when it does not.
  int failure[2];
  if (pipe2(failure, O_CLOEXEC) != 0) return Unavailable("pipe: {}", std::strerror(errno));
  const std::string sink = output.empty() ? "/dev/null" : output;
  const pid_t parent = getpid();
  const pid_t id = fork();
  if (id == 0) {  // only async-signal-safe calls from here to exec
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    const int in = open("/dev/null", O_RDONLY);
    const int out = open(sink.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t written = write(failure[1], &error, sizeof error);
    _exit(127);
  }
  close(failure[1]);
  if (id < 0) {
    close(failure[0]);
    return Unavailable("fork: {}", std::strerror(errno));
  }
  int error = 0;
  const ssize_t got = read(failure[0], &error, sizeof error);
  close(failure[0]);
  if (got == sizeof error) {
    waitpid(id, nullptr, 0);
    return NotFound("cannot run {}: {}", argv[0], std::strerror(error));
  }
  return ChildProcess(id);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : id_(std::exchange(other.id_, -1)), exit_code_(other.exit_code_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    Stop(absl::Seconds(5));
    id_ = std::exchange(other.id_, -1);
    exit_code_ = other.exit_code_;
  }
  return *this;
}

bool ChildProcess::Running() { return id_ > 0 && !Wait(absl::ZeroDuration()).ok(); }

int ChildProcess::Stop(absl::Duration grace) {
  if (id_ <= 0) return exit_code_;
  kill(id_, SIGTERM);
  kill(id_, SIGCONT);  // a stopped process cannot hear SIGTERM
  if (absl::StatusOr<int> code = Wait(grace); code.ok()) return *code;
  Kill();
  return exit_code_;
}

void ChildProcess::Kill() {
  if (id_ <= 0) return;
  kill(id_, SIGKILL);
  int status = 0;
  waitpid(id_, &status, 0);
  id_ = -1;
  exit_code_ = ExitCodeOf(status);
}

void ChildProcess::Pause() {
  if (id_ <= 0 || kill(id_, SIGSTOP) != 0) return;
  // Its threads go on for a moment; a child that has ended meanwhile is left for Wait.
  siginfo_t stopped = {};
  while (waitid(P_PID, static_cast<id_t>(id_), &stopped, WSTOPPED | WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
}

void ChildProcess::Resume() {
  if (id_ > 0) kill(id_, SIGCONT);
}

absl::StatusOr<int> ChildProcess::Wait(absl::Duration timeout) {
  if (id_ <= 0) return exit_code_;
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    int status = 0;
    if (waitpid(id_, &status, WNOHANG) == id_) {
      id_ = -1;
      exit_code_ = ExitCodeOf(status);
      return exit_code_;
    }
    if (absl::Now() >= deadline) return DeadlineExceeded("process {} still runs", id_);
    absl::SleepFor(kPoll);
  }
}

absl::StatusOr<std::string> WaitForFile(const std::filesystem::path& path, absl::Duration timeout,
                                        ChildProcess& writer) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    const bool running = writer.Running();  // asked first: what it wrote before it ended still counts
    std::ostringstream content;
    if (std::ifstream file(path); file) content << file.rdbuf();
    if (content.str().ends_with('\n')) return content.str();
    if (!running) return Unavailable("the process that was to write {} ended", path.string());
    if (absl::Now() >= deadline) return DeadlineExceeded("{} has not been written", path.string());
    absl::SleepFor(kPoll);
  }
}

TemporaryDirectory::TemporaryDirectory(const std::string& prefix) {
  std::string name = (std::filesystem::temp_directory_path() / (prefix + "XXXXXX")).string();
  if (mkdtemp(name.data()) == nullptr) {
    fmt::print(stderr, "cannot make a temporary directory {}: {}\n", name, std::strerror(errno));
    std::abort();
  }
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace kdn
