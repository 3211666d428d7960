#include "storage/base/daemon_process.h"

#include <grpc/support/log.h>
#include <pthread.h>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMaxQueuedLines = 4096;

void LogThroughSpdlog(gpr_log_func_args* args) {
  const auto level = args->severity == GPR_LOG_SEVERITY_ERROR  ? spdlog::level::warn
                     : args->severity == GPR_LOG_SEVERITY_INFO ? spdlog::level::info
                                                               : spdlog::level::debug;
  spdlog::log(level, "grpc: {}", args->message);
}

void KeepForever(std::shared_ptr<spdlog::logger> logger) {
  static const auto& kept = *new std::shared_ptr<spdlog::logger>(std::move(logger));
  (void)kept;
}

}  // namespace

Logging::Logging(const std::string& program, const LogOptions& options) : format_(options.format) {
  // The thread that writes must not be the one that a signal finds.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  writer_ = std::make_shared<spdlog::details::thread_pool>(kMaxQueuedLines, 1);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);

  const auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  const auto logger = [&](const std::string& name) {
    auto made =
        std::make_shared<spdlog::async_logger>(name, sink, writer_, spdlog::async_overflow_policy::overrun_oldest);
    made->set_formatter(MakeLogFormatter(options.format, program));
    return made;
  };
  const spdlog::level::level_enum level = spdlog::level::from_str(options.level);
  spdlog::set_default_logger(logger(program));
  spdlog::set_level(level);
  fields_ = logger(kFieldsLogger);
  fields_->set_level(level == spdlog::level::off ? level : spdlog::level::trace);
  gpr_set_log_function(LogThroughSpdlog);
}

Logging::~Logging() {
  const std::shared_ptr<spdlog::logger> queued = spdlog::default_logger();
  // Threads that still run, such as gRPC's, may be about to use it.
  KeepForever(queued);
  auto direct = std::make_shared<spdlog::logger>(queued->name(), std::make_shared<spdlog::sinks::stderr_sink_mt>());
  direct->set_formatter(MakeLogFormatter(format_, queued->name()));
  direct->set_level(queued->level());
  spdlog::set_default_logger(std::move(direct));
  writer_.reset();  // writes what is queued
}

std::function<uint64_t()> Logging::dropped() const {
  return [writer = std::weak_ptr<spdlog::details::thread_pool>(writer_)]() -> uint64_t {
    const auto held = writer.lock();
    return held == nullptr ? 0 : held->overrun_counter();
  };
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
