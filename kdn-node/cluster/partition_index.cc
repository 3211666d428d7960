#include "kdn-node/cluster/partition_index.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace kdn {
namespace {

constexpr size_t kFinest = size_t{1} << kMaxPartitionBits;

// [begin, end) of the finest partitions that make up `partition`.
std::pair<size_t, size_t> FinestOf(Partition partition, uint32_t bits) {
  const uint32_t shift = kMaxPartitionBits - bits;
  return {size_t{partition} << shift, (size_t{partition} + 1) << shift};
}

}  // namespace

PartitionIndex::PartitionIndex(std::vector<ChunkKey> keys)
    : keys_(std::move(keys)), begins_(kFinest + 1), sums_(kFinest) {
  for (const ChunkKey& key : keys_) {
    const Partition finest = Topology::PartitionOf(key, kMaxPartitionBits);
    ++begins_[finest + 1];
    sums_[finest] += XXH3_64bits(key.bytes.data(), kDigestSize);
  }
  for (size_t i = 0; i < kFinest; ++i) begins_[i + 1] += begins_[i];
}

std::span<const ChunkKey> PartitionIndex::KeysOf(Partition partition, uint32_t bits) const {
  const auto [begin, end] = FinestOf(partition, bits);
  return std::span(keys_).subspan(begins_[begin], begins_[end] - begins_[begin]);
}

PartitionDigest PartitionIndex::DigestOf(Partition partition, uint32_t bits) const {
  const auto [begin, end] = FinestOf(partition, bits);
  const uint32_t chunks = begins_[end] - begins_[begin];
  if (chunks == 0) return {};
  uint64_t sum = 0;
  for (size_t i = begin; i < end; ++i) sum += sums_[i];
  return {.digest = sum == 0 ? 1 : sum, .chunks = chunks};
}

bool PartitionIndex::Contains(const ChunkKey& key) const {
  return std::ranges::binary_search(KeysOf(Topology::PartitionOf(key, kMaxPartitionBits), kMaxPartitionBits), key);
}

std::shared_ptr<const PartitionIndex> PartitionIndexCache::Get() {
  MutexLock lock(mu_);
  const SteadyClock::Point now = clock_.Now();
  if (index_ == nullptr || now - made_ > absl::ToChronoNanoseconds(kMaxAge)) {
    index_ = std::make_shared<const PartitionIndex>(store_.Keys());
    made_ = now;
  }
  return index_;
}

void PartitionIndexCache::Outdate() {
  MutexLock lock(mu_);
  index_ = nullptr;
}

}  // namespace kdn
