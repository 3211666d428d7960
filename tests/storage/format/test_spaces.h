// Spaces and manifests that the tests of this folder start from.
#ifndef KDN_TESTS_STORAGE_FORMAT_TEST_SPACES_H_
#define KDN_TESTS_STORAGE_FORMAT_TEST_SPACES_H_

#include <cstdint>
#include <vector>

#include "storage/format/codec.h"
#include "storage/format/kv_space.h"
#include "storage/format/manifest.h"

namespace kdn {

inline LayerRun RopeRun(uint32_t count) {
  return {.count = count,
          .kv_heads = 2,
          .k_dim = 8,
          .v_dim = 8,
          .rope = {.kind = RopeKind::kHalfSplit, .rotary_dim = 8, .theta = 10000}};
}

inline KvSpace SmallSpace() {
  KvSpace space;
  space.model_id = "acme/tiny";
  space.weights_revision = "r1";
  space.layers = {RopeRun(3)};
  space.chunk_tokens = 16;
  return space;
}

// A chunk of SmallSpace() with 5 tokens, all slabs raw and full of zeros.
inline Manifest SmallManifest() {
  const KvSpace space = SmallSpace();
  Manifest manifest;
  manifest.space = ComputeSpaceId(space).value();
  const std::vector<Token> tokens = {1, 2, 3, 4, 5};
  manifest.key = ComputeChunkKey(manifest.space, ChunkKey(), tokens);
  manifest.tokens = 5;
  manifest.slabs = SlabsOf(space, 5);
  for (SlabInfo& slab : manifest.slabs) slab.checksum = SlabChecksum(std::vector<uint8_t>(slab.encoded_size));
  return manifest;
}

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_FORMAT_TEST_SPACES_H_
