// ChunkSelection: finds the chunks of a space, or those of one chain from some chunk on, a few at a time.
//
//   ChunkSelection selection(store, {.space = space, .under = key});
//   while (!selection.Look(1024)) {}
//   for (const ChunkKey& key : selection.Take()) …
//
// A chain is followed through chunks that are held: beyond one that is missing its later chunks are not found.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_ADMIN_CHUNK_SELECTION_H_
#define KDN_KDN_NODE_ADMIN_CHUNK_SELECTION_H_

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "storage/format/digest.h"
#include "storage/tiered_store.h"

namespace kdn {

struct ChunkFilter {
  std::optional<SpaceId> space = std::nullopt;   // any, unless given
  std::optional<ChunkKey> under = std::nullopt;  // this chunk and what comes after it
  std::optional<ChunkKey> after = std::nullopt;  // keys beyond it, in the order of their bytes
};

class ChunkSelection {
 public:
  // `store` outlives this.
  ChunkSelection(TieredStore& store, const ChunkFilter& filter) : store_(store), filter_(filter) {}

  // Looks at up to `count` more chunks; true once all have been looked at.
  bool Look(size_t count);
  size_t looked_at() const { return next_; }

  // What was found, in the order of the keys' bytes.
  std::vector<ChunkKey> Take() &&;

 private:
  TieredStore& store_;
  const ChunkFilter filter_;
  std::optional<std::vector<ChunkKey>> keys_;  // all that there were when the looking began
  size_t next_ = 0;
  std::vector<std::pair<ChunkKey, ChunkKey>> found_;  // with their parents
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_CHUNK_SELECTION_H_
