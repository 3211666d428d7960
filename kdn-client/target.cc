#include <charconv>

#include "kdn-client/transport.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

bool IsPort(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port != 0;
}

}  // namespace

absl::Status ValidateTarget(std::string_view target) {
  constexpr std::string_view kUnixScheme = "unix:";
  if (target.starts_with(kUnixScheme)) {
    if (target.size() > kUnixScheme.size()) return absl::OkStatus();
    return InvalidArgument("target '{}': the path is missing; write unix:/path/of/socket", target);
  }
  const size_t colon = target.rfind(':');
  if (colon == std::string_view::npos)
    return InvalidArgument("target '{}': the port is missing; write host:port", target);
  const std::string_view host = target.substr(0, colon);
  const std::string_view port = target.substr(colon + 1);
  if (!IsPort(port)) return InvalidArgument("target '{}': '{}' is no port; give 1 to 65535", target, port);
  if (host.empty()) return InvalidArgument("target '{}': the host is missing; write host:port", target);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find_first_of(":[]/ ") != std::string_view::npos) {
    return InvalidArgument("target '{}': '{}' is no host; write host:port, or [address]:port for IPv6", target, host);
  }
  return absl::OkStatus();
}

}  // namespace kdn
