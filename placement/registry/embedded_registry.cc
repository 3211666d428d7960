#include <memory>
#include <utility>

#include "placement/registry/local_registry.h"
#include "placement/registry/registry.h"
#include "placement/registry/registry_state.h"
#include "placement/registry/rocks_journal.h"
#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<std::unique_ptr<Registry>> OpenEmbeddedRegistry(const EmbeddedRegistryOptions& options,
                                                               const SteadyClock& clock) {
  if (options.path.empty())
    return InvalidArgument("registry: no directory is given; name one for the embedded registry");
  RegistryState state;
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<RocksJournal> journal, RocksJournal::Open(options.path, state));
  return std::make_unique<LocalRegistry>("embedded in " + options.path, std::move(state), std::move(journal), clock);
}

}  // namespace kdn
