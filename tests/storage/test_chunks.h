// Spaces and chunks for tests: small, valid, and the same in every run.
#ifndef KDN_TESTS_STORAGE_TEST_CHUNKS_H_
#define KDN_TESTS_STORAGE_TEST_CHUNKS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "storage/chunk.h"
#include "storage/format/kv_space.h"
#include "storage/tier/pins.h"

namespace kdn::testing {

// `layers` layers of 2 KV heads × 16 dims in bf16, K and V kept: a slab of n tokens has 64 n bytes.
KvSpace MakeSpace(const std::string& model_id = "test/model", uint32_t layers = 4);
SpaceId IdOf(const KvSpace& space);

// The first chunk of a segment of `tokens` tokens that `seed` decides, its KV bytes drawn from `seed` as well.
Chunk MakeChunk(const KvSpace& space, uint32_t seed, uint32_t tokens = 16, CodecId codec = CodecId::kRaw);

// The same key with other bytes, of lower fidelity.
Chunk WithFidelity(const Chunk& chunk, Fidelity fidelity);

// The same manifest, but one byte of slab `slab` is flipped.
Chunk WithFlippedByte(const Chunk& chunk, uint32_t slab);

// All slabs' bytes, one after another.
std::string BytesOf(const Chunk& chunk);

// Flips a bit in the middle of `bytes`, which one of the files in `directory` holds.
void FlipBitUnder(const std::string& directory, ByteSpan bytes);

// Pins that do not change.
class FixedPins final : public Pins {
 public:
  explicit FixedPins(std::vector<ChunkKey> keys) : keys_(std::move(keys)) {}
  bool IsPinned(const ChunkKey& key) const override { return std::ranges::count(keys_, key) > 0; }
  size_t PinnedChunks() const override { return keys_.size(); }
  void ForEach(absl::FunctionRef<void(const ChunkKey&)> visit) const override {
    for (const ChunkKey& key : keys_) visit(key);
  }

 private:
  const std::vector<ChunkKey> keys_;
};

// A directory under the test's temporary directory, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace kdn::testing

#endif  // KDN_TESTS_STORAGE_TEST_CHUNKS_H_
