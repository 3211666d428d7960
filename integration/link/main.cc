// kdn-link: a LinkProxy as a program, to put between a client and a node by hand.
#include <fmt/core.h>
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "integration/link/flags.h"
#include "integration/link/link_proxy.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Complete or not there: whoever waits for the file may read it at once.
absl::Status WritePortFile(const std::string& path, const Endpoint& endpoint) {
  const std::string partial = path + ".partial";
  std::ofstream out(partial, std::ios::trunc);
  out << endpoint.ToString() << '\n';
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(partial, path, error);
  if (!out || error) return Unavailable("--port-file: cannot write {}", path);
  return absl::OkStatus();
}

// Serves until SIGTERM or SIGINT.
absl::Status Serve(const LinkFlags& flags) {
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);  // in the proxy's thread as well

  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<LinkProxy> proxy, LinkProxy::Start(flags.upstream, flags.link));
  if (!flags.port_file.empty()) KDN_RETURN_IF_ERROR(WritePortFile(flags.port_file, proxy->endpoint()));
  fmt::print("{}\n", proxy->endpoint().ToString());
  std::fflush(stdout);

  int signal_number = 0;
  sigwait(&stop_signals, &signal_number);
  const LinkStats stats = proxy->Stats();
  fmt::print(stderr, "kdn-link: {} connections, {} bytes up, {} bytes down\n", stats.connections, stats.bytes_up,
             stats.bytes_down);
  return absl::OkStatus();
}

}  // namespace
}  // namespace kdn

int main(int argc, char** argv) {
  kdn::LinkFlagsResult parsed = kdn::ParseLinkFlags(argc, argv);
  if (!parsed.flags.has_value()) {
    fmt::print(parsed.exit_code == 0 ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  if (const absl::Status status = kdn::Serve(*parsed.flags); !status.ok()) {
    fmt::print(stderr, "kdn-link: {}\n", kdn::MessageOf(status));
    return 1;
  }
  return 0;
}
