#include "storage/base/daemon_process.h"

#include <grpc/support/log.h>
#include <pthread.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <system_error>

#include "storage/base/status.h"

namespace kdn {
namespace {

void LogThroughSpdlog(gpr_log_func_args* args) {
  const auto level = args->severity == GPR_LOG_SEVERITY_ERROR  ? spdlog::level::warn
                     : args->severity == GPR_LOG_SEVERITY_INFO ? spdlog::level::info
                                                               : spdlog::level::debug;
  spdlog::log(level, "grpc: {}", args->message);
}

}  // namespace

void StartLogging(const std::string& program, const std::string& level) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt(program));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
  spdlog::set_level(spdlog::level::from_str(level));
  gpr_set_log_function(LogThroughSpdlog);
}

absl::Status WritePortFile(const std::string& path, const std::vector<Endpoint>& endpoints) {
  const std::string partial = path + ".partial";
  std::ofstream out(partial, std::ios::trunc);
  for (const Endpoint& endpoint : endpoints) out << endpoint.ToString() << '\n';
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(partial, path, error);
  if (!out || error) return Unavailable("--port-file: cannot write {}", path);
  return absl::OkStatus();
}

void RaiseFileLimit(std::string_view name, size_t connections) {
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < connections) {
    spdlog::warn("the system allows {} open files, {} is {}; raise LimitNOFILE or ulimit -n", files.rlim_max, name,
                 connections);
  }
}

StopSignals::StopSignals() : signals_() {
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
}

std::string_view StopSignals::Wait() {
  int number = 0;
  sigwait(&signals_, &number);
  pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
  return number == SIGINT ? "SIGINT" : "SIGTERM";
}

}  // namespace kdn
