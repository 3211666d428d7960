// MemoryRegistry: the registry in memory, with what tests need to own its time.
//
//   ManualSteadyClock clock;
//   std::unique_ptr<MemoryRegistry> registry = MakeTestRegistry(clock);
//   clock.Advance(absl::Seconds(10));
//   registry->EndDueLeases();       // by this very thread; no sleep
//   registry->WaitForWatchers();    // they have been told
//
// With a clock that stands still nothing ends by itself, but every call looks at the clock first.
//
// Thread-safety: as Registry.
#ifndef KDN_PLACEMENT_REGISTRY_MEMORY_REGISTRY_H_
#define KDN_PLACEMENT_REGISTRY_MEMORY_REGISTRY_H_

#include <memory>

#include "placement/registry/registry.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class MemoryRegistry : public Registry {
 public:
  // Ends the leases that are over by the clock.
  virtual void EndDueLeases() = 0;
  // Returns once every watcher has been told of all that happened before the call. Not from within a watcher's call.
  virtual void WaitForWatchers() = 0;
};

// `clock` outlives it.
std::unique_ptr<MemoryRegistry> MakeTestRegistry(const SteadyClock& clock);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_MEMORY_REGISTRY_H_
