#include "integration/link/flags.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/time/time.h"
#include "storage/base/command_line.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// What the flags say, before it is checked.
struct RawFlags {
  std::string upstream;
  std::string bandwidth = "unlimited";
  std::string up_bandwidth;
  std::string down_bandwidth;
  std::string latency = "0";
  std::string jitter = "0";
  std::string loss = "0%";
  std::string queue = "1MiB";
  std::string window = "32MiB";
  uint64_t seed = 1;
  std::string port_file;
};

void Declare(CLI::App& app, RawFlags& raw) {
  app.set_version_flag("--version", "kdn-link " KDN_VERSION);
  app.set_help_flag("-h,--help", "Print this and exit");
  app.get_formatter()->column_width(36);

  const auto add = [&](const char* name, auto& value, const char* type, const char* help) {
    return app.add_option(name, value, help)->capture_default_str()->type_name(type);
  };
  add("--upstream", raw.upstream, "HOST:PORT", "Where to connect each client to, as in 127.0.0.1:7401")->required();
  add("--bandwidth", raw.bandwidth, "RATE", "Of each way, shared by all connections: 10Mbit to 100Gbit, or unlimited");
  add("--up-bandwidth", raw.up_bandwidth, "RATE", "From clients to the upstream, where that differs");
  add("--down-bandwidth", raw.down_bandwidth, "RATE", "From the upstream to clients, where that differs");
  add("--latency", raw.latency, "DURATION", "One way, as in 10ms; at most 10s");
  add("--jitter", raw.jitter, "DURATION", "Added to the latency: anything from 0 to this; at most 10s");
  add("--loss", raw.loss, "PERCENT",
      "Segments of 1448 bytes that are lost, as in 0.1%, at most 50%; a loss makes the rest of its connection late, as "
      "TCP does");
  add("--queue", raw.queue, "SIZE", "Bytes of one connection and way that may wait for the link, 64KiB to 1GiB");
  add("--window", raw.window, "SIZE", "Bytes of one connection and way that may be on the link, 64KiB to 1GiB");
  add("--seed", raw.seed, "N", "Of jitter and loss");
  add("--port-file", raw.port_file, "PATH", "Once serving, write the address that clients connect to here");
}

// A number and what follows it; a number that is not finite and at least 0 is none.
std::pair<std::optional<double>, std::string_view> SplitNumber(std::string_view text) {
  double number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || !std::isfinite(number) || std::signbit(number)) return {std::nullopt, text};
  return {number, std::string_view(end, static_cast<size_t>(last - end))};
}

template <typename T>
absl::Status Set(T& value, const char* flag, const absl::StatusOr<T>& parsed) {
  if (!parsed.ok()) return Annotate(parsed.status(), flag);
  value = *parsed;
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> ParseDelay(const std::string& text) {
  absl::Duration delay;
  if (absl::ParseDuration(text, &delay)) return delay;
  return InvalidArgument("'{}' is not a duration; give a number and a unit, as in 10ms or 1.5s", text);
}

absl::StatusOr<LinkFlags> Check(const RawFlags& raw) {
  LinkFlags flags;
  flags.port_file = raw.port_file;
  LinkOptions& link = flags.link;
  KDN_RETURN_IF_ERROR(Set(flags.upstream, "--upstream", ParseEndpoint(raw.upstream)));
  if (flags.upstream.port == 0) return InvalidArgument("--upstream: '{}' has no port to connect to", raw.upstream);
  KDN_RETURN_IF_ERROR(Set(link.up_bits_per_second, "--bandwidth", ParseBandwidth(raw.bandwidth)));
  link.down_bits_per_second = link.up_bits_per_second;
  if (!raw.up_bandwidth.empty()) {
    KDN_RETURN_IF_ERROR(Set(link.up_bits_per_second, "--up-bandwidth", ParseBandwidth(raw.up_bandwidth)));
  }
  if (!raw.down_bandwidth.empty()) {
    KDN_RETURN_IF_ERROR(Set(link.down_bits_per_second, "--down-bandwidth", ParseBandwidth(raw.down_bandwidth)));
  }
  KDN_RETURN_IF_ERROR(Set(link.latency, "--latency", ParseDelay(raw.latency)));
  KDN_RETURN_IF_ERROR(Set(link.jitter, "--jitter", ParseDelay(raw.jitter)));
  KDN_RETURN_IF_ERROR(Set(link.loss, "--loss", ParsePercent(raw.loss)));
  KDN_RETURN_IF_ERROR(Set(link.queue_bytes, "--queue", ParseByteSize(raw.queue)));
  KDN_RETURN_IF_ERROR(Set(link.window_bytes, "--window", ParseByteSize(raw.window)));
  link.seed = raw.seed;
  KDN_RETURN_IF_ERROR(ValidateLinkOptions(link));
  return flags;
}

LinkFlagsResult Exit(ProgramExit exit) { return {.text = std::move(exit.text), .exit_code = exit.exit_code}; }

}  // namespace

LinkFlagsResult ParseLinkFlags(int argc, const char* const* argv) {
  CLI::App app("kdn-link: a slow, far or lossy link to a TCP server, on a port of 127.0.0.1. SIGTERM ends it.",
               "kdn-link");
  RawFlags raw;
  Declare(app, raw);
  if (std::optional<ProgramExit> exit = ReadCommandLine(app, argc, argv)) return Exit(*std::move(exit));
  absl::StatusOr<LinkFlags> flags = Check(raw);
  if (!flags.ok()) return Exit(BadFlags(app, flags.status()));
  return {.flags = *std::move(flags)};
}

absl::StatusOr<uint64_t> ParseBandwidth(std::string_view text) {
  if (text == "unlimited") return 0;
  const auto [number, unit] = SplitNumber(text);
  const double bits = unit == "Kbit" ? 1e3 : unit == "Mbit" ? 1e6 : unit == "Gbit" ? 1e9 : 0;
  if (!number.has_value() || bits == 0) {
    return InvalidArgument("'{}' is not a bandwidth; give a number and Kbit, Mbit or Gbit, as in 100Mbit, or unlimited",
                           text);
  }
  const double bits_per_second = *number * bits;
  if (!(bits_per_second >= 1 && bits_per_second < 1e18)) {
    return InvalidArgument("'{}' is out of range; give 10Mbit to 100Gbit, or unlimited", text);
  }
  return static_cast<uint64_t>(std::llround(bits_per_second));
}

absl::StatusOr<double> ParsePercent(std::string_view text) {
  const auto [number, unit] = SplitNumber(text);
  if (number.has_value() && unit == "%") return *number / 100;
  return InvalidArgument("'{}' is not a share; give a number and %, as in 0.1%", text);
}

}  // namespace kdn
