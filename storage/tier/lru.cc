#include "storage/tier/lru.h"

namespace kdn {

void Lru::Insert(const ChunkKey& key, uint64_t bytes) {
  Erase(key);
  order_.push_front({key, bytes});
  index_.emplace(key, order_.begin());
  bytes_ += bytes;
}

bool Lru::Touch(const ChunkKey& key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return false;
  order_.splice(order_.begin(), order_, it->second);
  return true;
}

bool Lru::Erase(const ChunkKey& key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return false;
  bytes_ -= it->second->bytes;
  order_.erase(it->second);
  index_.erase(it);
  return true;
}

std::optional<std::vector<Lru::Entry>> Lru::Victims(uint64_t bytes, absl::FunctionRef<bool(const ChunkKey&)> pinned) {
  std::vector<Entry> victims;
  std::vector<Order::iterator> passed;
  uint64_t freed = 0;
  for (auto it = order_.end(); freed < bytes && it != order_.begin();) {
    --it;
    if (pinned(it->key)) {
      passed.push_back(it);
    } else {
      victims.push_back(*it);
      freed += it->bytes;
    }
  }
  for (const auto it : passed) order_.splice(order_.begin(), order_, it);
  if (freed < bytes) return std::nullopt;
  return victims;
}

}  // namespace kdn
