// What the web page draws, as JSON. docs/operations.md describes the documents.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_WEB_ANALYTICS_JSON_H_
#define KDN_PLACEMENT_WEB_ANALYTICS_JSON_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "placement/analytics/collector.h"
#include "placement/analytics/history.h"
#include "placement/analytics/placement_analytics_service.h"

namespace kdn {

// Of GET /api/v1/overview. `interval`: how often the nodes are asked.
std::string OverviewJson(const ClusterReport& report, const LoadLookup& loads, absl::Duration interval,
                         std::span<const SpaceId> spaces_with_history);

// The same of the spaces that are called so; empty: whatever they are called. Nodes, tiers, and the curve of all spaces
// stay.
std::string OverviewJson(const ClusterReport& report, const LoadLookup& loads, absl::Duration interval,
                         std::span<const SpaceId> spaces_with_history, std::string_view model, std::string_view tenant);

// Of GET /api/v1/history.
std::string HistoryJson(const HistoryRange& range);

// {"error": …}; what is no UTF-8 in it is replaced.
std::string ErrorJson(const std::string& message);

}  // namespace kdn

#endif  // KDN_PLACEMENT_WEB_ANALYTICS_JSON_H_
