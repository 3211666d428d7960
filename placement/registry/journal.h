// Journal: where a registry of our own keeps its history before it tells anybody of it.
//
// Thread-safety: one call at a time.
#ifndef KDN_PLACEMENT_REGISTRY_JOURNAL_H_
#define KDN_PLACEMENT_REGISTRY_JOURNAL_H_

#include <span>

#include "absl/status/status.h"
#include "placement/registry/registry_state.h"

namespace kdn {

class Journal {
 public:
  virtual ~Journal() = default;
  // All or nothing, and there to stay when it returns. `after` is what the registry holds once the steps are applied.
  virtual absl::Status Append(std::span<const RegistryStep> steps, const RegistryState& after) = 0;
};

// Keeps nothing.
class NoJournal final : public Journal {
 public:
  absl::Status Append(std::span<const RegistryStep>, const RegistryState&) override { return absl::OkStatus(); }
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_JOURNAL_H_
