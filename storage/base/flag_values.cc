#include "storage/base/flag_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<uint64_t> ParseByteSize(std::string_view text) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  static constexpr Unit kUnits[] = {
      {"", 1},
      {"B", 1},
      {"KiB", uint64_t{1} << 10},
      {"MiB", uint64_t{1} << 20},
      {"GiB", uint64_t{1} << 30},
      {"TiB", uint64_t{1} << 40},
      {"KB", 1'000},
      {"MB", 1'000'000},
      {"GB", 1'000'000'000},
      {"TB", 1'000'000'000'000},
  };
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc()) {
    const std::string_view name(end, static_cast<size_t>(text.data() + text.size() - end));
    for (const Unit& unit : kUnits) {
      if (name != unit.name) continue;
      if (number > kMax / unit.bytes) return InvalidArgument("'{}' is more than {} bytes", text, kMax);
      return number * unit.bytes;
    }
  }
  return InvalidArgument("'{}' is not a size; give a whole number and a unit, as in 4096, 512MiB or 4GiB", text);
}

absl::StatusOr<uint64_t> SizeFlag(std::string_view name, const std::string& text, uint64_t least) {
  absl::StatusOr<uint64_t> size = ParseByteSize(text);
  if (!size.ok()) return Annotate(size.status(), std::string(name));
  if (*size < least) return InvalidArgument("{}: {} is too little; give at least {}", name, text, least);
  return size;
}

absl::StatusOr<absl::Duration> DurationFlag(std::string_view name, const std::string& text, bool zero_is_fine) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration() ||
      duration == absl::InfiniteDuration() || (duration == absl::ZeroDuration() && !zero_is_fine)) {
    return InvalidArgument("{}: '{}' is not a duration; give a number and a unit, as in 90s or 1h", name, text);
  }
  return duration;
}

absl::StatusOr<Endpoint> ListenFlag(std::string_view name, const std::string& text, bool insecure_remote) {
  absl::StatusOr<Endpoint> endpoint = ParseEndpoint(text);
  if (!endpoint.ok()) return Annotate(endpoint.status(), std::string(name));
  if (!endpoint->IsLoopback() && !insecure_remote) {
    return InvalidArgument(
        "{}: {} is reachable from other machines, and there is no authentication yet; listen on 127.0.0.1 or [::1], or "
        "accept that with --insecure-remote",
        name, text);
  }
  return endpoint;
}

absl::Status CheckLogLevel(std::string_view name, const std::string& text) {
  constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warn", "error", "off"};
  if (std::ranges::find(kLevels, text) != std::end(kLevels)) return absl::OkStatus();
  return InvalidArgument("{}: '{}' is not one of {}", name, text, fmt::join(kLevels, ", "));
}

}  // namespace kdn
