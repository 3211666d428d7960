// Holds the library to golden.json, which golden.py computes without it. A failure here means that stored data and
// peers of other versions would no longer be understood: change the format's version, not the vectors.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "storage/format/byte_io.h"
#include "storage/format/codec.h"
#include "storage/format/kv_space.h"
#include "storage/format/manifest.h"
#include "storage/format/plane_split.h"

namespace kdn {
namespace {

using Json = nlohmann::json;

const Json& Golden() {
  static const Json golden = Json::parse(std::ifstream(KDN_GOLDEN_JSON));
  return golden;
}

std::string FromHex(const Json& hex) {
  const auto digits = hex.get<std::string>();
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string ToHex(ByteSpan bytes) {
  std::string hex;
  for (const uint8_t b : bytes) hex += fmt::format("{:02x}", b);
  return hex;
}

DType DTypeNamed(const std::string& name) {
  for (uint8_t i = 0; i < 255; ++i) {
    if (IsKnownDType(i) && DTypeName(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  }
  ADD_FAILURE() << "no dtype " << name;
  return DType::kBf16;
}

RopeSpec ParseRope(const Json& j) {
  return {.kind = static_cast<RopeKind>(j["kind"].get<int>()),
          .scaling = static_cast<RopeScaling>(j["scaling"].get<int>()),
          .rotary_dim = j["rotary_dim"],
          .theta = j["theta"],
          .factor = j["factor"],
          .low_freq_factor = j["low_freq_factor"],
          .high_freq_factor = j["high_freq_factor"],
          .attention_factor = j["attention_factor"],
          .original_max_position = j["original_max_position"]};
}

KvSpace ParseSpace(const Json& j) {
  const std::map<std::string, StoredKind> stored = {
      {"kv", StoredKind::kKv}, {"k_only", StoredKind::kKOnly}, {"latent", StoredKind::kLatent}};
  KvSpace space;
  space.model_id = j["model_id"];
  space.weights_revision = j["weights_revision"];
  space.adapter_id = j["adapter_id"];
  space.adapter_revision = j["adapter_revision"];
  space.tenant_salt = FromHex(j["tenant_salt_hex"]);
  space.dtype = DTypeNamed(j["dtype"]);
  for (const Json& run : j["layers"]) {
    space.layers.push_back({.count = run["count"],
                            .kv_heads = run["kv_heads"],
                            .k_dim = run["k_dim"],
                            .v_dim = run["v_dim"],
                            .stored = stored.at(run["stored"]),
                            .sliding_window = run["sliding_window"],
                            .rope = ParseRope(run["rope"])});
  }
  space.layer_map = j["layer_map"].get<std::vector<uint32_t>>();
  space.keys_after_rope = j["keys_after_rope"];
  space.tp_rank = j["tp_rank"];
  space.tp_world = j["tp_world"];
  space.pp_first_layer = j["pp_first_layer"];
  space.chunk_tokens = j["chunk_tokens"];
  return space;
}

SlabShape ParseShape(const Json& j) { return {j["tokens"], j["heads"], j["dim"], DTypeNamed(j["dtype"])}; }

TEST(GoldenTest, SpaceBytesAndIds) {
  ASSERT_EQ(Golden()["spaces"].size(), 2u);
  for (const Json& vector : Golden()["spaces"]) {
    SCOPED_TRACE(vector["name"].get<std::string>());
    const KvSpace space = ParseSpace(vector);
    const auto encoded = EncodeSpace(space);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(ToHex(AsBytes(*encoded)), vector["bytes_hex"]);
    EXPECT_EQ(ComputeSpaceId(space)->ToHex(), vector["id"]);
    EXPECT_EQ(DecodeSpace(AsBytes(FromHex(vector["bytes_hex"]))).value(), space);
  }
}

TEST(GoldenTest, ChunkKeys) {
  const Json& vector = Golden()["chunk_keys"];
  const SpaceId space = SpaceId::FromHex(vector["space"].get<std::string>()).value();
  const auto tokens = vector["tokens"].get<std::vector<Token>>();
  const uint32_t chunk_tokens = vector["chunk_tokens"];
  const auto chain = ChunkChain(space, chunk_tokens, tokens).value();
  ASSERT_EQ(chain.size(), vector["chain"].size());
  for (size_t i = 0; i < chain.size(); ++i) EXPECT_EQ(chain[i].key.ToHex(), vector["chain"][i]);

  std::vector<std::string> extras;
  for (const Json& extra : vector["extras_hex"]) extras.push_back(FromHex(extra));
  EXPECT_EQ(ComputeChunkKey(space, {}, std::span(tokens).first(chunk_tokens), extras).ToHex(),
            vector["first_with_extras"]);
}

TEST(GoldenTest, ManifestBytes) {
  const std::map<std::string, SlabKind> kinds = {{"k", SlabKind::kK}, {"v", SlabKind::kV}};
  const Json& vector = Golden()["manifest"];
  Manifest manifest;
  manifest.space = SpaceId::FromHex(vector["space"].get<std::string>()).value();
  manifest.key = ChunkKey::FromHex(vector["key"].get<std::string>()).value();
  manifest.parent = ChunkKey::FromHex(vector["parent"].get<std::string>()).value();
  manifest.first_token = vector["first_token"];
  manifest.tokens = vector["tokens"];
  manifest.fidelity = static_cast<Fidelity>(vector["fidelity"].get<int>());
  for (const Json& slab : vector["slabs"]) {
    manifest.slabs.push_back({.layer = slab["layer"],
                              .kind = kinds.at(slab["kind"]),
                              .codec = FindCodec(std::string_view(slab["codec"].get<std::string>())).value()->id(),
                              .shape = ParseShape(slab["shape"]),
                              .encoded_size = slab["encoded_size"],
                              .checksum = std::stoull(slab["checksum"].get<std::string>(), nullptr, 16)});
  }
  const auto encoded = EncodeManifest(manifest);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  const std::string body = FromHex(vector["body_hex"]);
  const uint64_t checksum = XXH3_64bits(body.data(), body.size());
  EXPECT_EQ(fmt::format("{:016x}", checksum), vector["xxh3_64"]);
  std::string expected = body + std::string(8, '\0');
  StoreLe(checksum, reinterpret_cast<uint8_t*>(&expected[body.size()]));
  EXPECT_EQ(ToHex(AsBytes(*encoded)), ToHex(AsBytes(expected)));
  EXPECT_EQ(DecodeManifest(AsBytes(expected)).value(), manifest);
}

TEST(GoldenTest, PlaneSplit) {
  const Json& vector = Golden()["planes16"];
  const std::string words = FromHex(vector["words_hex"]);
  const size_t n = words.size() / 2;
  std::vector<uint8_t> high(n), low(n);
  SplitPlanes16(AsBytes(words).data(), n, high.data(), low.data());
  EXPECT_EQ(ToHex(high), vector["high_hex"]);
  EXPECT_EQ(ToHex(low), vector["low_hex"]);
}

TEST(GoldenTest, ZstdPayloadOfStoredPlanes) {
  const Json& vector = Golden()["zstd_stored_payload"];
  const SlabShape shape = ParseShape(vector["shape"]);
  const std::string raw = FromHex(vector["raw_hex"]);
  const Codec* const codec = FindCodec(CodecId::kZstd).value();
  auto payload = codec->Encode(shape, SlabKind::kK, AsBytes(raw));
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(ToHex(payload->span()), vector["payload_hex"]);
}

}  // namespace
}  // namespace kdn
