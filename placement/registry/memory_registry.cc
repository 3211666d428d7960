#include "placement/registry/memory_registry.h"

#include "placement/registry/journal.h"
#include "placement/registry/local_registry.h"
#include "placement/registry/registry_state.h"

namespace kdn {

std::unique_ptr<MemoryRegistry> MakeTestRegistry(const SteadyClock& clock) {
  return std::make_unique<LocalRegistry>("in memory", RegistryState(), std::make_unique<NoJournal>(), clock);
}

std::unique_ptr<Registry> MakeMemoryRegistry(const SteadyClock& clock) { return MakeTestRegistry(clock); }

}  // namespace kdn
