#include "kdn-client/from_wire.h"

#include <fmt/core.h>

namespace kdn {

Miss MissFromWire(int reason, const std::string& detail) {
  constexpr size_t kLongestDetail = 512;
  if (reason < 0 || reason >= kMissReasonCount) {
    return {MissReason::kProtocol, fmt::format("the node gave the unknown reason {}", reason)};
  }
  return {static_cast<MissReason>(reason), detail.substr(0, kLongestDetail)};
}

TierKind TierFromWire(int tier) {
  switch (tier) {
    case v1::TIER_MEMORY:
      return TierKind::kMemory;
    case v1::TIER_DISK:
      return TierKind::kDisk;
    case v1::TIER_COLD_DISK:
      return TierKind::kColdDisk;
    default:
      return TierKind::kNone;
  }
}

absl::Status StatusFromWire(const v1::ChunkStatus& status) {
  if (status.code() == 0) return absl::OkStatus();
  const bool known = status.code() > 0 && status.code() <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return absl::Status(known ? static_cast<absl::StatusCode>(status.code()) : absl::StatusCode::kUnknown,
                      status.message());
}

}  // namespace kdn
