// Endpoint: an address to listen on, "HOST:PORT". IPv6 addresses stand in brackets: "[::1]:7401".
//
// Thread-safety: values.
#ifndef KDN_STORAGE_BASE_ENDPOINT_H_
#define KDN_STORAGE_BASE_ENDPOINT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kdn {

struct Endpoint {
  std::string host;   // without brackets
  uint16_t port = 0;  // 0: the system chooses

  std::string ToString() const;
  // True when only processes of this machine can reach it: 127.0.0.0/8, ::1 and localhost.
  bool IsLoopback() const;
};

// INVALID_ARGUMENT naming what is wrong.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_ENDPOINT_H_
