// ReadFlights: reads that are under way, so that whoever wants the same layers of the same chunk meanwhile waits for
// the read that has begun, and shares its result, instead of reading as well.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_TIER_READ_FLIGHTS_H_
#define KDN_STORAGE_TIER_READ_FLIGHTS_H_

#include <memory>
#include <optional>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "storage/base/mutex.h"
#include "storage/tier/tier.h"

namespace kdn {

class ReadFlights {
 public:
  // What `read` gives, or what another thread's `read` for the same layers gave that began before.
  absl::StatusOr<TierRead> Read(const ChunkKey& key, LayerRange layers,
                                absl::FunctionRef<absl::StatusOr<TierRead>()> read) {
    const Id id(key, layers.begin, layers.end);
    std::shared_ptr<Flight> flight;
    {
      MutexLock lock(mu_);
      const auto [it, first] = flights_.try_emplace(id);
      if (!first) {
        flight = it->second;
        while (!flight->result.has_value()) landed_.Wait(mu_);
        return *flight->result;
      }
      flight = it->second = std::make_shared<Flight>();
    }
    absl::StatusOr<TierRead> result = read();
    {
      MutexLock lock(mu_);
      flight->result = result;
      flights_.erase(id);
    }
    landed_.NotifyAll();
    return result;
  }

 private:
  using Id = std::tuple<ChunkKey, uint32_t, uint32_t>;
  struct Flight {
    std::optional<absl::StatusOr<TierRead>> result;  // guarded by mu_
  };

  Mutex mu_;
  CondVar landed_;
  absl::flat_hash_map<Id, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_READ_FLIGHTS_H_
