// What the tests of kdn-client start from: small spaces, an engine's memory full of KV, and segments of tokens.
#ifndef KDN_TESTS_KDN_CLIENT_ENGINE_MEMORY_H_
#define KDN_TESTS_KDN_CLIENT_ENGINE_MEMORY_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kdn-client/client.h"
#include "storage/format/chunk_key.h"
#include "storage/format/kv_space.h"

namespace kdn {

inline constexpr uint32_t kChunkTokens = 16;

// Three layers with K and V, and one with a joint latent.
inline KvSpace TinySpace(DType dtype = DType::kBf16) {
  KvSpace space;
  space.model_id = "acme/tiny";
  space.weights_revision = "r1";
  space.dtype = dtype;
  space.layers = {{.count = 3, .kv_heads = 2, .k_dim = 16, .v_dim = 8, .rope = {}},
                  {.count = 1, .kv_heads = 1, .k_dim = 20, .v_dim = 0, .stored = StoredKind::kLatent, .rope = {}}};
  space.chunk_tokens = kChunkTokens;
  return space;
}

// Engine memory for one sequence of `space`.
class EngineMemory {
 public:
  EngineMemory(const KvSpace& space, uint32_t capacity_tokens) {
    view_.capacity_tokens = capacity_tokens;
    for (const LayerRun& run : space.layers) {
      const size_t row = run.kv_heads * DTypeSize(space.dtype) * capacity_tokens;
      for (uint32_t i = 0; i < run.count; ++i) {
        k_.emplace_back(row * run.k_dim);
        v_.emplace_back(row * run.v_dim);
      }
    }
    for (std::vector<uint8_t>& tensor : k_) view_.k.push_back(tensor.data());
    for (std::vector<uint8_t>& tensor : v_) view_.v.push_back(tensor.empty() ? nullptr : tensor.data());
  }

  // Fills it with the 16-bit tops of normally distributed floats, which lossless codecs can shrink.
  static EngineMemory WithKv(const KvSpace& space, uint32_t capacity_tokens, uint32_t seed = 1) {
    EngineMemory memory(space, capacity_tokens);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<uint8_t>& tensor) {
      for (size_t i = 0; i + 1 < tensor.size(); i += 2) {
        const auto top = static_cast<uint16_t>(std::bit_cast<uint32_t>(normal(random)) >> 16);
        std::memcpy(tensor.data() + i, &top, sizeof top);
      }
    };
    for (std::vector<uint8_t>& tensor : memory.k_) fill(tensor);
    for (std::vector<uint8_t>& tensor : memory.v_) fill(tensor);
    return memory;
  }

  const ContiguousKv& view() const { return view_; }
  std::vector<uint8_t>& k(size_t layer) { return k_[layer]; }
  std::vector<uint8_t>& v(size_t layer) { return v_[layer]; }

  // The bytes of tokens [first, first + tokens) of a layer, K then V.
  std::vector<uint8_t> Rows(size_t layer, uint32_t first, uint32_t tokens) const {
    std::vector<uint8_t> rows;
    for (const std::vector<uint8_t>* tensor : {&k_[layer], &v_[layer]}) {
      const size_t row = tensor->size() / view_.capacity_tokens;
      const auto begin = tensor->begin() + static_cast<ptrdiff_t>(first * row);
      rows.insert(rows.end(), begin, begin + static_cast<ptrdiff_t>(tokens * row));
    }
    return rows;
  }

  bool IsZero(size_t layer, uint32_t first, uint32_t tokens) const {
    const std::vector<uint8_t> rows = Rows(layer, first, tokens);
    return std::accumulate(rows.begin(), rows.end(), 0u) == 0;
  }

  friend bool operator==(const EngineMemory& a, const EngineMemory& b) { return a.k_ == b.k_ && a.v_ == b.v_; }

 private:
  std::vector<std::vector<uint8_t>> k_;
  std::vector<std::vector<uint8_t>> v_;
  ContiguousKv view_;
};

inline std::vector<Token> SomeTokens(size_t n, Token first = 100) {
  std::vector<Token> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// The chain of a segment of `tokens` tokens in `space`, with its short last chunk.
inline std::vector<ChunkRef> Chain(const KvSpace& space, size_t tokens) {
  return ChunkChain(ComputeSpaceId(space).value(), space.chunk_tokens, SomeTokens(tokens)).value();
}

inline std::vector<MissReason> Reasons(const FetchReport& report) {
  std::vector<MissReason> reasons;
  for (const ChunkOutcome& chunk : report.chunks) reasons.push_back(chunk.miss.reason);
  return reasons;
}

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_ENGINE_MEMORY_H_
