// Words for the numbers of the protocol, as kdnctl prints them. They are part of its interface.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_CTL_WIRE_NAMES_H_
#define KDN_KDN_CLIENT_CTL_WIRE_NAMES_H_

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "kdn/v1/admin.pb.h"
#include "kdn/v1/node.pb.h"
#include "kdn/v1/placement.pb.h"
#include "storage/base/buffer.h"

namespace kdn::ctl {

// "memory", "disk", "disk-2" …
inline std::string LevelName(uint32_t level) {
  if (level == 0) return "memory";
  return level == 1 ? "disk" : fmt::format("disk-{}", level);
}

inline std::string_view StateName(v1::NodeState state) {
  switch (state) {
    case v1::NODE_STATE_JOINING:
      return "joining";
    case v1::NODE_STATE_ACTIVE:
      return "active";
    case v1::NODE_STATE_DRAINING:
      return "draining";
    case v1::NODE_STATE_DOWN:
      return "down";
    default:
      return "unknown";
  }
}

// Who set a quota.
inline std::string_view QuotaSourceName(v1::Quota::Source source) {
  switch (source) {
    case v1::Quota::SOURCE_FLAG:
      return "flag";
    case v1::Quota::SOURCE_RUN_TIME:
      return "run time";
    default:
      return "none";
  }
}

inline std::string_view FidelityName(v1::Fidelity fidelity) {
  switch (fidelity) {
    case v1::FIDELITY_EXACT:
      return "exact";
    case v1::FIDELITY_QUANTISED:
      return "quantised";
    case v1::FIDELITY_APPROXIMATE:
      return "approximate";
    default:
      return "unknown";
  }
}

// Bytes that a peer sent, as hexadecimal digits.
inline std::string Hex(std::string_view bytes) {
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const char c : bytes) fmt::format_to(std::back_inserter(hex), "{:02x}", static_cast<unsigned char>(c));
  return hex;
}

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_WIRE_NAMES_H_
