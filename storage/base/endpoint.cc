#include "storage/base/endpoint.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "storage/base/status.h"

namespace kdn {
namespace {

bool IsIpv6(const std::string& host) {
  in6_addr address;
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool IsHostName(std::string_view host) {
  return !host.empty() && std::ranges::all_of(host, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  });
}

}  // namespace

std::string Endpoint::ToString() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

bool Endpoint::IsLoopback() const {
  if (host == "localhost") return true;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return InvalidArgument("'{}' has no port; give HOST:PORT, as in 127.0.0.1:7401 or [::1]:7401", text);
  }
  std::string_view host = text.substr(0, colon);
  const std::string_view port_text = text.substr(colon + 1);

  Endpoint endpoint;
  const auto [end, error] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), endpoint.port);
  if (port_text.empty() || error != std::errc() || end != port_text.data() + port_text.size()) {
    return InvalidArgument("'{}' has the port '{}'; give a number from 0 to 65535", text, port_text);
  }

  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
    endpoint.host = host;
    if (!IsIpv6(endpoint.host)) return InvalidArgument("'{}': '{}' is not an IPv6 address", text, host);
    return endpoint;
  }
  endpoint.host = host;
  if (host.find(':') != std::string_view::npos) {
    return InvalidArgument("'{}': put an IPv6 address in brackets, as in [::1]:7401", text);
  }
  if (!IsHostName(host)) {
    return InvalidArgument("'{}': '{}' is not a host; give an address or a name, as in 127.0.0.1:7401", text, host);
  }
  return endpoint;
}

}  // namespace kdn
