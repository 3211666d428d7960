// What the network benchmarks move: Dataset, chunks whose slabs are all of one size; EngineMemory, where an engine
// keeps all of them; and calls of a Client for the whole of a Dataset, for which anything but success is an error.
//
//   KDN_ASSIGN_OR_RETURN(const Dataset data, Dataset::Create("fetch", 1 << 20, 128 << 20));
//   EngineMemory source(data);
//   source.FillWithNoise();
//   KDN_RETURN_IF_ERROR(StoreAll(*client, data, source, "raw").status());
//
// Thread-safety: a Dataset may be read by any thread, an EngineMemory by any while none writes.
#ifndef KDN_BENCH_NETWORK_DATA_H_
#define KDN_BENCH_NETWORK_DATA_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/client.h"

namespace kdn::bench {

// K only, in bf16, so that a layer of a chunk is one slab. A chunk has 16 MiB, or 32 layers when that is less, or one
// slab when that is more.
class Dataset {
 public:
  // `slab_bytes` is a power of two from 4 KiB. Datasets of other names have other keys.
  static absl::StatusOr<Dataset> Create(const std::string& name, uint64_t slab_bytes, uint64_t total_bytes);

  const KvSpace& space() const { return space_; }
  const SpaceId& space_id() const { return space_id_; }
  std::span<const ChunkRef> chunks() const { return chunks_; }
  std::vector<ChunkKey> Keys() const;
  uint32_t layers() const { return space_.layers[0].count; }
  uint64_t slab_bytes() const { return slab_bytes_; }
  uint64_t slabs() const { return chunks_.size() * layers(); }
  uint64_t bytes() const { return slabs() * slab_bytes_; }

  // Slab `i` is layer i % layers() of chunk i / layers().
  std::span<const ChunkRef> ChunkOf(uint64_t slab) const { return chunks().subspan(slab / layers(), 1); }
  LayerRange LayerOf(uint64_t slab) const;

 private:
  Dataset() = default;

  uint64_t slab_bytes_ = 0;
  KvSpace space_;
  SpaceId space_id_;
  std::vector<ChunkRef> chunks_;
};

class EngineMemory {
 public:
  explicit EngineMemory(const Dataset& data);
  EngineMemory(const EngineMemory&) = delete;
  EngineMemory& operator=(const EngineMemory&) = delete;

  void FillWithZeros();
  void FillWithNoise();
  // Values of a normal distribution in bf16, which a lossless codec makes about 1.5 times smaller, as it does real KV.
  void FillWithNormalValues();

  const ContiguousKv& view() const { return view_; }
  std::span<uint8_t> Slab(uint64_t index);
  std::span<const uint8_t> Slab(uint64_t index) const;
  friend bool operator==(const EngineMemory& a, const EngineMemory& b) { return a.layers_ == b.layers_; }

 private:
  const uint64_t slab_bytes_;
  std::vector<std::vector<uint8_t>> layers_;
  ContiguousKv view_;
};

// Of any one call.
inline constexpr absl::Duration kCallDeadline = absl::Seconds(60);

// Bytes that were sent.
absl::StatusOr<uint64_t> StoreAll(Client& client, const Dataset& data, const EngineMemory& source,
                                  const std::string& codec);
absl::Status FetchChunks(Client& client, std::span<const ChunkRef> chunks, LayerRange layers,
                         const EngineMemory& destination);
absl::Status DeleteAll(Client& client, const Dataset& data);

// "64 KiB", "1 MiB".
std::string SizeName(uint64_t kib);

}  // namespace kdn::bench

#endif  // KDN_BENCH_NETWORK_DATA_H_
