// What a RouteRequest asks for, checked; and the answer as it travels.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_DAEMON_ROUTE_REQUEST_H_
#define KDN_PLACEMENT_DAEMON_ROUTE_REQUEST_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn/v1/placement.pb.h"
#include "placement/daemon/router.h"
#include "storage/format/digest.h"

namespace kdn {

inline constexpr size_t kMaxRouteKeys = 4096;
inline constexpr size_t kMaxRouteTokens = 1'000'000;
inline constexpr int kMaxRouteGroups = 64;
inline constexpr absl::Duration kDefaultRouteTimeout = absl::Milliseconds(100);
inline constexpr absl::Duration kMaxRouteTimeout = absl::Seconds(10);

struct RouteQuestion {
  SpaceId space;
  std::vector<ChunkKey> keys;
  absl::Duration timeout = kDefaultRouteTimeout;
};

// The keys, or those of the tokens. INVALID_ARGUMENT: lengths, limits, keys and tokens both, an id of a space that is
// needed and not given.
absl::StatusOr<RouteQuestion> ParseRoute(const v1::RouteRequest& request);

// `held` is empty when nodes were not asked.
void AnswerRoute(const Router& router, std::span<const ChunkKey> keys, std::span<const NodeHolding> held,
                 const v1::RouteRequest& request, v1::RouteResponse& response);

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_ROUTE_REQUEST_H_
