// SpaceCensus: counts what a store holds of each space, a few chunks at a time.
//
//   SpaceCensus census(store);
//   while (!census.Count(1024)) {}
//   census.Report(response);
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_ADMIN_SPACE_CENSUS_H_
#define KDN_KDN_NODE_ADMIN_SPACE_CENSUS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kdn/v1/admin.pb.h"
#include "storage/format/digest.h"
#include "storage/tiered_store.h"

namespace kdn {

class SpaceCensus {
 public:
  // `store` outlives this.
  explicit SpaceCensus(TieredStore& store) : store_(store) {}

  // Counts up to `count` more chunks; true once all are counted.
  bool Count(size_t count);

  // At most `limit` spaces, those with most bytes.
  void Report(size_t limit, v1::ListSpacesResponse& response) const;

 private:
  struct Held {
    uint64_t chunks = 0;
    uint64_t bytes = 0;
    uint64_t charged = 0;  // of the tier's budget
  };
  struct Space {
    Held all;  // each chunk once
    uint64_t tokens = 0;
    uint64_t roots = 0;
    uint64_t expiring = 0;
    std::vector<Held> levels;
    ManifestPtr sample;  // of the longest chunk
  };

  TieredStore& store_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
  absl::flat_hash_map<SpaceId, Space> spaces_;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_SPACE_CENSUS_H_
