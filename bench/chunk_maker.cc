#include "bench/chunk_maker.h"

#include <cstring>
#include <memory>
#include <random>
#include <utility>

namespace kdn::bench {

ChunkMaker::ChunkMaker(uint32_t layers, SlabShape shape) : shape_(shape) {
  std::mt19937_64 random(1);
  for (uint32_t i = 0; i < 2 * layers; ++i) {
    Buffer slab(shape.RawSize());
    for (size_t at = 0; at + 8 <= slab.size(); at += 8) {
      const uint64_t word = random();
      std::memcpy(slab.data() + at, &word, sizeof word);
    }
    slabs_.push_back(std::move(slab).Freeze());
    infos_.push_back({.layer = i / 2,
                      .kind = i % 2 == 0 ? SlabKind::kK : SlabKind::kV,
                      .codec = CodecId::kRaw,
                      .shape = shape,
                      .encoded_size = shape.RawSize(),
                      .checksum = SlabChecksum(slabs_.back())});
  }
}

Chunk ChunkMaker::Make(uint64_t number) const {
  Manifest manifest;
  manifest.space.bytes[0] = 1;
  manifest.key = KeyOf(number);
  manifest.tokens = shape_.tokens;
  manifest.slabs = infos_;
  return {.manifest = std::make_shared<const Manifest>(std::move(manifest)), .slabs = slabs_};
}

ChunkKey ChunkMaker::KeyOf(uint64_t number) {
  return {.bytes = Sha256({ByteSpan(reinterpret_cast<const uint8_t*>(&number), sizeof number)})};
}

}  // namespace kdn::bench
