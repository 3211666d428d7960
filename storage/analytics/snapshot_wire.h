// Between AnalyticsSnapshot and kdn.v1.AnalyticsSnapshot.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_ANALYTICS_SNAPSHOT_WIRE_H_
#define KDN_STORAGE_ANALYTICS_SNAPSHOT_WIRE_H_

#include "absl/status/statusor.h"
#include "kdn/v1/analytics.pb.h"
#include "storage/analytics/snapshot.h"

namespace kdn {

v1::AnalyticsSnapshot ToWire(const AnalyticsSnapshot& snapshot);

// INVALID_ARGUMENT naming the field: a space or key of a wrong length, a number that is none, more spaces, prefixes or
// events than any node sends. Tiers, causes and kinds of events that this build does not know are left out.
absl::StatusOr<AnalyticsSnapshot> FromWire(const v1::AnalyticsSnapshot& message);

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_SNAPSHOT_WIRE_H_
