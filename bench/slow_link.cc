#include "bench/slow_link.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "integration/link/link_proxy.h"
#include "integration/process/child_process.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kSetUpTime = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(5);

// Runs a command to its end. UNAVAILABLE with what it printed when it fails.
absl::Status RunCommand(const std::vector<std::string>& command) {
  const TemporaryDirectory directory("kdn-bench-command-");
  const std::string output = directory.path() / "output";
  KDN_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Start(command, output));
  KDN_ASSIGN_OR_RETURN(const int exit_code, process.Wait(kSetUpTime));
  if (exit_code == 0) return absl::OkStatus();
  std::ifstream file(output);
  std::string printed((std::istreambuf_iterator<char>(file)), {});
  std::ranges::replace(printed, '\n', ' ');
  return Unavailable("{} {} ended with {}: {}", command[0], command.size() > 1 ? command[1] : "", exit_code, printed);
}

std::filesystem::path NamespaceOf(const std::string& process) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/" + process + "/ns/net", error);
}

// Waits until `process` has moved into a namespace of its own.
absl::Status WaitForNamespace(ChildProcess& process) {
  for (const absl::Time deadline = absl::Now() + kSetUpTime; absl::Now() < deadline; absl::SleepFor(kPoll)) {
    if (!process.Running()) return Unavailable("no network namespace may be made here");
    const std::filesystem::path its = NamespaceOf(std::to_string(process.id()));
    if (!its.empty() && its != NamespaceOf("self")) return absl::OkStatus();
  }
  return Unavailable("unshare has made no network namespace");
}

class NamespaceLink final : public SlowLink {
 public:
  static absl::StatusOr<std::unique_ptr<SlowLink>> Start(uint64_t bits_per_second) {
    KDN_ASSIGN_OR_RETURN(ChildProcess keeper, ChildProcess::Start({"unshare", "--net", "sleep", "infinity"}));
    KDN_RETURN_IF_ERROR(WaitForNamespace(keeper));
    const std::string id = std::to_string(keeper.id());
    // 198.18.0.0/15 is set aside for benchmarks.
    const std::string network = fmt::format("198.18.{}.", keeper.id() % 256);
    ServerPlace far_end{.prefix = {"nsenter", "--target", id, "--net"}, .host = network + "2"};
    const ServerPlace near_end{.host = network + "1"};
    const std::string near_device = "kdn" + id;
    const std::string far_device = "kdn0";
    KDN_RETURN_IF_ERROR(
        RunCommand({"ip", "link", "add", near_device, "type", "veth", "peer", "name", far_device, "netns", id}));
    KDN_RETURN_IF_ERROR(RunCommand(far_end.CommandLine({"ip", "link", "set", "lo", "up"})));
    KDN_RETURN_IF_ERROR(SetUp(near_end, near_device, bits_per_second));
    KDN_RETURN_IF_ERROR(SetUp(far_end, far_device, bits_per_second));
    return std::unique_ptr<SlowLink>(new NamespaceLink(std::move(keeper), std::move(far_end)));
  }

  const ServerPlace& far_end() const override { return far_end_; }
  absl::StatusOr<Endpoint> Reach(const Endpoint& server) override { return server; }
  std::string Description() const override { return "network namespace behind a veth pair, tc tbf at both ends"; }

 private:
  NamespaceLink(ChildProcess keeper, ServerPlace far_end) : keeper_(std::move(keeper)), far_end_(std::move(far_end)) {}

  // Gives a device its address and its rate. A burst is a millisecond, and at least two of the largest packets.
  static absl::Status SetUp(const ServerPlace& end, const std::string& device, uint64_t bits_per_second) {
    const uint64_t burst = std::max<uint64_t>(bits_per_second / 8000, 128 << 10);
    KDN_RETURN_IF_ERROR(RunCommand(end.CommandLine({"ip", "addr", "add", end.host + "/30", "dev", device})));
    KDN_RETURN_IF_ERROR(RunCommand(end.CommandLine({"tc", "qdisc", "add", "dev", device, "root", "tbf", "rate",
                                                    fmt::format("{}bit", bits_per_second), "burst",
                                                    std::to_string(burst), "limit", std::to_string(32 << 20)})));
    return RunCommand(end.CommandLine({"ip", "link", "set", device, "up"}));
  }

  ChildProcess keeper_;  // the namespace and the veth pair end with it
  const ServerPlace far_end_;
};

class ProxyLink final : public SlowLink {
 public:
  ProxyLink(uint64_t bits_per_second, std::string reason)
      : options_{.up_bits_per_second = bits_per_second, .down_bits_per_second = bits_per_second},
        reason_(std::move(reason)) {}

  const ServerPlace& far_end() const override { return far_end_; }
  absl::StatusOr<Endpoint> Reach(const Endpoint& server) override {
    KDN_ASSIGN_OR_RETURN(std::unique_ptr<LinkProxy> proxy, LinkProxy::Start(server, options_));
    proxies_.push_back(std::move(proxy));
    return proxies_.back()->endpoint();
  }
  std::string Description() const override { return "LinkProxy, " + reason_; }

 private:
  const ServerPlace far_end_;  // loopback
  const LinkOptions options_;
  const std::string reason_;
  std::vector<std::unique_ptr<LinkProxy>> proxies_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SlowLink>> SlowLink::Start(LinkEmulator emulator, uint64_t bits_per_second) {
  if (emulator == LinkEmulator::kProxy) return std::make_unique<ProxyLink>(bits_per_second, "as asked for");
  absl::StatusOr<std::unique_ptr<SlowLink>> link = NamespaceLink::Start(bits_per_second);
  if (link.ok() || emulator == LinkEmulator::kNamespace) return link;
  return std::make_unique<ProxyLink>(bits_per_second, MessageOf(link.status()));
}

}  // namespace kdn::bench
