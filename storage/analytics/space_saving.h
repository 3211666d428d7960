// SpaceSaving: the keys that occur most often in a stream, in bounded memory (Metwally, Agrawal, El Abbadi 2005).
//
//   SpaceSaving<SpaceId> sketch(512);
//   sketch.Count(key).value = space;
//   for (const auto& entry : sketch.entries()) Use(entry.key, entry.count - entry.error, entry.value);
//
// When all places are taken, a new key takes that of the least count and inherits the count as its error: a key
// occurred at most `count` and at least `count - error` times, and every key that occurred more often than the total
// divided by the places is among the entries.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_ANALYTICS_SPACE_SAVING_H_
#define KDN_STORAGE_ANALYTICS_SPACE_SAVING_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "storage/format/digest.h"

namespace kdn {

// `Value`: what is kept with a key, made anew for each key that comes in.
template <typename Value>
class SpaceSaving {
 public:
  struct Entry {
    ChunkKey key;
    double count = 0;
    double error = 0;  // how much of it may belong to keys that were here before
    Value value = {};
  };

  // `places`: at least 1.
  explicit SpaceSaving(size_t places) : room_(places) {
    heap_.reserve(places);
    places_.reserve(places + 1);
  }

  bool Contains(const ChunkKey& key) const { return places_.contains(key); }

  // The entry's value may be changed until the next call.
  Entry& Count(const ChunkKey& key) {
    if (const auto it = places_.find(key); it != places_.end()) {
      heap_[it->second].count += 1;
      return SiftDown(it->second);
    }
    if (heap_.size() < room_) {
      heap_.push_back({.key = key, .count = 1});
      places_[key] = heap_.size() - 1;
      return SiftUp(heap_.size() - 1);
    }
    const double least = heap_.front().count;
    places_.erase(heap_.front().key);
    Place(0, {.key = key, .count = least + 1, .error = least});
    return SiftDown(0);
  }

  // Multiplies all counts, so that the past counts for less.
  void Scale(double factor) {
    for (Entry& entry : heap_) {  // all by the same factor: it stays a heap
      entry.count *= factor;
      entry.error *= factor;
    }
  }

  const std::vector<Entry>& entries() const { return heap_; }  // in no order that matters
  size_t MemoryBytes() const {
    return heap_.capacity() * sizeof(Entry) + places_.capacity() * (sizeof(std::pair<ChunkKey, size_t>) + 1);
  }

 private:
  void Place(size_t at, Entry entry) {
    heap_[at] = std::move(entry);
    places_[heap_[at].key] = at;
  }

  Entry& SiftUp(size_t at) {
    Entry entry = std::move(heap_[at]);
    while (at > 0 && heap_[(at - 1) / 2].count > entry.count) {
      Place(at, std::move(heap_[(at - 1) / 2]));
      at = (at - 1) / 2;
    }
    Place(at, std::move(entry));
    return heap_[at];
  }

  Entry& SiftDown(size_t at) {
    Entry entry = std::move(heap_[at]);
    while (true) {
      size_t child = 2 * at + 1;
      if (child >= heap_.size()) break;
      if (child + 1 < heap_.size() && heap_[child + 1].count < heap_[child].count) ++child;
      if (heap_[child].count >= entry.count) break;
      Place(at, std::move(heap_[child]));
      at = child;
    }
    Place(at, std::move(entry));
    return heap_[at];
  }

  size_t room_;
  std::vector<Entry> heap_;                       // the least count on top
  absl::flat_hash_map<ChunkKey, size_t> places_;  // in heap_
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_SPACE_SAVING_H_
