// What every registry demands of what it is given, so that a change that one backend takes is taken by all.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_REGISTRY_CHANGE_RULES_H_
#define KDN_PLACEMENT_REGISTRY_CHANGE_RULES_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/registry/registry.h"

namespace kdn {

// INVALID_ARGUMENT: over the limits, an empty key, one key written twice, or a revision or lease that cannot be.
absl::Status CheckChange(const Change& change);

// INVALID_ARGUMENT: longer than any key.
absl::Status CheckPrefix(std::string_view prefix);

// In seconds. INVALID_ARGUMENT: not whole seconds, or out of range.
absl::StatusOr<int64_t> LeaseSeconds(absl::Duration ttl);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_CHANGE_RULES_H_
