#include "tests/storage/test_chunks.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "storage/format/chunk_key.h"
#include "storage/format/codec.h"

namespace kdn::testing {
namespace {

Buffer RandomBytes(size_t size, std::mt19937_64& random) {
  Buffer bytes(size);
  for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, std::min(sizeof word, size - i));
  }
  return bytes;
}

}  // namespace

KvSpace MakeSpace(const std::string& model_id, uint32_t layers) {
  KvSpace space;
  space.model_id = model_id;
  space.weights_revision = "r1";
  space.dtype = DType::kBf16;
  space.layers = {{.count = layers,
                   .kv_heads = 2,
                   .k_dim = 16,
                   .v_dim = 16,
                   .rope = {.kind = RopeKind::kHalfSplit, .rotary_dim = 16, .theta = 10000}}};
  return space;
}

SpaceId IdOf(const KvSpace& space) { return ComputeSpaceId(space).value(); }

Chunk MakeChunk(const KvSpace& space, uint32_t seed, uint32_t tokens, CodecId codec) {
  Manifest manifest;
  manifest.space = IdOf(space);
  std::vector<Token> text(tokens, seed);
  manifest.key = ComputeChunkKey(manifest.space, ChunkKey{}, text);
  manifest.tokens = tokens;
  manifest.slabs = SlabsOf(space, tokens);
  const Codec* encoder = FindCodec(codec).value();
  std::mt19937_64 random(seed);
  Chunk chunk;
  for (SlabInfo& slab : manifest.slabs) {
    const Buffer raw = RandomBytes(slab.shape.RawSize(), random);
    SharedBuffer encoded = encoder->Encode(slab.shape, slab.kind, {raw.data(), raw.size()}).value().Freeze();
    slab.codec = codec;
    slab.encoded_size = encoded.size();
    slab.checksum = SlabChecksum(encoded);
    chunk.slabs.push_back(std::move(encoded));
  }
  chunk.manifest = std::make_shared<const Manifest>(std::move(manifest));
  return chunk;
}

Chunk WithFidelity(const Chunk& chunk, Fidelity fidelity) {
  Chunk copy = WithFlippedByte(chunk, 0);
  Manifest manifest = *chunk.manifest;
  manifest.fidelity = fidelity;
  manifest.slabs[0].checksum = SlabChecksum(copy.slabs[0]);
  copy.manifest = std::make_shared<const Manifest>(std::move(manifest));
  return copy;
}

Chunk WithFlippedByte(const Chunk& chunk, uint32_t slab) {
  Chunk copy = chunk;
  std::vector<uint8_t> bytes(chunk.slabs[slab].span().begin(), chunk.slabs[slab].span().end());
  bytes[bytes.size() / 2] ^= 0x10;
  copy.slabs[slab] = SharedBuffer::CopyOf(bytes);
  return copy;
}

std::string BytesOf(const Chunk& chunk) {
  std::string bytes;
  for (const SharedBuffer& slab : chunk.slabs) bytes += AsStringView(slab);
  return bytes;
}

void FlipBitUnder(const std::string& directory, ByteSpan bytes) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::string file(entry.file_size(), '\0');
    std::fstream stream(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.read(file.data(), static_cast<std::streamsize>(file.size()));
    const size_t at = file.find(AsStringView(bytes));
    if (at == std::string::npos) continue;
    ++found;
    stream.seekp(static_cast<std::streamoff>(at + bytes.size() / 2));
    stream.put(static_cast<char>(file[at + bytes.size() / 2] ^ 1));
  }
  EXPECT_EQ(found, 1) << "files with these bytes in " << directory;
}

TempDir::TempDir() : path_(::testing::TempDir() + "/kdn-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "cannot make " << path_;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace kdn::testing
