// PartitionIndex: which chunks a store holds, by partition, with a digest of each partition, as of one moment.
//
//   PartitionIndexCache indexes(store);
//   std::shared_ptr<const PartitionIndex> index = indexes.Get();
//   if (index->DigestOf(partition, bits) != theirs) for (const ChunkKey& key : index->KeysOf(partition, bits)) …
//
// A digest is the sum, modulo 2^64, of XXH3-64 (seed 0) of the keys of the partition's chunks, 1 in place of 0, and 0
// for a partition without chunks (docs/formats.md, "Partition digests"). A key is the hash of its space as well, so
// that nothing else need go into it; how exactly a chunk is held, how long, and in which tier, does not.
//
// Thread-safety: PartitionIndex is an immutable value; the cache may be used from any thread.
#ifndef KDN_KDN_NODE_CLUSTER_PARTITION_INDEX_H_
#define KDN_KDN_NODE_CLUSTER_PARTITION_INDEX_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "placement/topology/topology.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"
#include "storage/tiered_store.h"

namespace kdn {

struct PartitionDigest {
  uint64_t digest = 0;
  uint32_t chunks = 0;
  friend bool operator==(const PartitionDigest&, const PartitionDigest&) = default;
};

class PartitionIndex {
 public:
  // `keys` in the order of their bytes, each once.
  explicit PartitionIndex(std::vector<ChunkKey> keys);

  // `bits`: kMinPartitionBits to kMaxPartitionBits; `partition` below 2^bits.
  std::span<const ChunkKey> KeysOf(Partition partition, uint32_t bits) const;
  PartitionDigest DigestOf(Partition partition, uint32_t bits) const;
  bool Contains(const ChunkKey& key) const;
  size_t size() const { return keys_.size(); }

 private:
  std::vector<ChunkKey> keys_;
  std::vector<uint32_t> begins_;  // of the finest partitions in keys_, and one more
  std::vector<uint64_t> sums_;    // of each of them
};

class PartitionIndexCache {
 public:
  // What is newer than this is not made anew. For a million chunks that takes some 0.2 s.
  static constexpr absl::Duration kMaxAge = absl::Milliseconds(500);

  // `store` and `clock` outlive this.
  explicit PartitionIndexCache(TieredStore& store, const SteadyClock& clock = SteadyClock::Real())
      : store_(store), clock_(clock) {}

  // Made at most kMaxAge ago; whoever comes while one is made waits for it.
  std::shared_ptr<const PartitionIndex> Get();
  // The next Get makes a new one.
  void Outdate();

 private:
  TieredStore& store_;
  const SteadyClock& clock_;
  Mutex mu_;
  std::shared_ptr<const PartitionIndex> index_ ABSL_GUARDED_BY(mu_);
  SteadyClock::Point made_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_CLUSTER_PARTITION_INDEX_H_
