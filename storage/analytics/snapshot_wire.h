// Between AnalyticsSnapshot and kdn.v1.AnalyticsSnapshot, and between their parts that others send as well.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_ANALYTICS_SNAPSHOT_WIRE_H_
#define KDN_STORAGE_ANALYTICS_SNAPSHOT_WIRE_H_

#include "absl/status/statusor.h"
#include "kdn/v1/analytics.pb.h"
#include "storage/analytics/blend_counts.h"
#include "storage/analytics/snapshot.h"
#include "storage/analytics/use_report.h"

namespace kdn {

v1::AnalyticsSnapshot ToWire(const AnalyticsSnapshot& snapshot);

// INVALID_ARGUMENT naming the field: a space or key of a wrong length, a number that is none, more spaces, prefixes or
// events than any node sends. Tiers, causes and kinds of events that this build does not know are left out.
absl::StatusOr<AnalyticsSnapshot> FromWire(const v1::AnalyticsSnapshot& message);

// INVALID_ARGUMENT naming the field: an amount that is not finite. Reasons that this build does not know are kFailed.
void ToWire(const BlendCounts& counts, v1::BlendCounts& out);
absl::StatusOr<BlendCounts> FromWire(const v1::BlendCounts& message);

// FromWire: the errors of CheckUseReport, and a space of a wrong length.
v1::ReportUseRequest ToWire(const UseReport& report);
absl::StatusOr<UseReport> FromWire(const v1::ReportUseRequest& message);

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_SNAPSHOT_WIRE_H_
