#include "kdn-node/admin/chunk_selection.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace kdn {

bool ChunkSelection::Look(size_t count) {
  if (!keys_.has_value()) keys_ = store_.Keys();
  for (; count > 0 && next_ < keys_->size(); --count) {
    const ChunkKey& key = (*keys_)[next_++];
    const absl::StatusOr<ChunkDescription> chunk = store_.Describe(key);
    if (!chunk.ok()) continue;  // it went meanwhile
    if (filter_.space.has_value() && chunk->manifest->space != *filter_.space) continue;
    found_.emplace_back(key, chunk->manifest->parent);
  }
  return next_ == keys_->size();
}

std::vector<ChunkKey> ChunkSelection::Take() && {
  std::vector<ChunkKey> taken;
  if (filter_.under.has_value()) {
    absl::flat_hash_map<ChunkKey, std::vector<ChunkKey>> children;
    bool root_is_held = false;
    for (const auto& [key, parent] : found_) {
      children[parent].push_back(key);
      root_is_held = root_is_held || key == *filter_.under;
    }
    if (root_is_held) taken.push_back(*filter_.under);
    // A forged manifest may name a parent that makes a circle; each chunk is followed once.
    absl::flat_hash_set<ChunkKey> seen = {*filter_.under};
    std::vector<ChunkKey> open = {*filter_.under};
    while (!open.empty()) {
      const ChunkKey at = open.back();
      open.pop_back();
      const auto next = children.find(at);
      if (next == children.end()) continue;
      for (const ChunkKey& child : next->second) {
        if (!seen.insert(child).second) continue;
        taken.push_back(child);
        open.push_back(child);
      }
    }
    std::ranges::sort(taken);
  } else {
    taken.reserve(found_.size());
    for (const auto& [key, parent] : found_) taken.push_back(key);
  }
  if (filter_.after.has_value()) taken.erase(taken.begin(), std::ranges::upper_bound(taken, *filter_.after));
  return taken;
}

}  // namespace kdn
