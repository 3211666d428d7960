// An engine's memory in any layout, full of poison, and where each element lies in it, worked out from the shapes that
// kdn-client/kv_layout.h gives, one index after another.
#ifndef KDN_TESTS_KDN_CLIENT_KV_MEMORY_H_
#define KDN_TESTS_KDN_CLIENT_KV_MEMORY_H_

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kdn-client/kv_layout.h"
#include "storage/format/kv_space.h"
#include "tests/kdn-client/float_reference.h"

namespace kdn {

// What a memory is like.
struct MemoryKind {
  bool paged = false;
  PoolOrder pool_order = PoolOrder::kSeparate;
  BlockOrder block_order = BlockOrder::kNhd;
  uint32_t block_tokens = 1;
  DType dtype = DType::kBf16;
  HeadRange heads = {};

  std::string Name() const {
    constexpr std::array<const char*, 3> kOrders = {"[2, blocks, block]", "[blocks, 2, block]", "separate"};
    const std::string pool = paged ? fmt::format("paged {} {} blocks of {}", kOrders[static_cast<size_t>(pool_order)],
                                                 block_order == BlockOrder::kNhd ? "NHD" : "HND", block_tokens)
                                   : "contiguous";
    return fmt::format("{}, {}, heads [{}, {})", pool, DTypeName(dtype), heads.begin, heads.end);
  }
};

// All layouts with the block sizes given, in the order of their fields.
inline std::vector<MemoryKind> AllKinds(DType dtype, std::initializer_list<uint32_t> block_sizes) {
  std::vector<MemoryKind> kinds = {{.paged = false, .dtype = dtype}};
  for (const PoolOrder pool : {PoolOrder::kKvBlocks, PoolOrder::kBlocksKv, PoolOrder::kSeparate}) {
    for (const BlockOrder block : {BlockOrder::kNhd, BlockOrder::kHnd}) {
      for (const uint32_t tokens : block_sizes) {
        kinds.push_back(
            {.paged = true, .pool_order = pool, .block_order = block, .block_tokens = tokens, .dtype = dtype});
      }
    }
  }
  return kinds;
}

// One element of a space's KV.
struct ElementIndex {
  uint32_t layer;
  bool is_v;
  uint32_t token;
  uint32_t head;  // of the space
  uint32_t dim;
};

// Calls visit(run, index) for every element of `tokens` tokens of the space's KV.
template <typename Visit>
void ForEachElement(const KvSpace& space, uint32_t tokens, Visit visit) {
  uint32_t layer = 0;
  for (const LayerRun& run : space.layers) {
    for (uint32_t i = 0; i < run.count; ++i, ++layer) {
      for (const bool is_v : {false, true}) {
        if (is_v && run.stored != StoredKind::kKv) continue;
        for (uint32_t token = 0; token < tokens; ++token) {
          for (uint32_t head = 0; head < run.kv_heads; ++head) {
            for (uint32_t dim = 0; dim < (is_v ? run.v_dim : run.k_dim); ++dim) {
              visit(run, ElementIndex{.layer = layer, .is_v = is_v, .token = token, .head = head, .dim = dim});
            }
          }
        }
      }
    }
  }
}

class KvMemory {
 public:
  // Room for `tokens` tokens. Blocks are used in an order of no meaning, and the pools have more than are used.
  KvMemory(const KvSpace& space, const MemoryKind& kind, uint32_t tokens) : kind_(kind), tokens_(tokens) {
    const uint32_t used = kind.paged ? (tokens + kind.block_tokens - 1) / kind.block_tokens : 1;
    blocks_ = used + 2;
    std::vector<int32_t> order(blocks_);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(7));
    table_.assign(order.begin(), order.begin() + used);
    for (const LayerRun& run : space.layers) {
      for (uint32_t i = 0; i < run.count; ++i) {
        const bool has_v = run.stored == StoredKind::kKv;
        const bool joint = Joint(run);
        k_.push_back(Tensor(run, run.k_dim, joint ? 2 : 1));
        v_.push_back(has_v && !joint ? Tensor(run, run.v_dim, 1) : std::vector<uint8_t>());
      }
    }
  }

  const MemoryKind& kind() const { return kind_; }

  bool Holds(const LayerRun& run, uint32_t head) const {
    return head >= kind_.heads.begin && head < std::min(kind_.heads.end, run.kv_heads);
  }

  // The address of an element whose head the memory holds.
  uint8_t* At(const LayerRun& run, const ElementIndex& index) {
    const bool joint = Joint(run);
    std::vector<uint8_t>& tensor = index.is_v && !joint ? v_[index.layer] : k_[index.layer];
    const Step half = {index.is_v ? 1u : 0u, 2};
    const Step token = {index.token, tokens_};
    const Step head = {index.head - kind_.heads.begin, Heads(run)};
    const Step dim = {index.dim, index.is_v ? run.v_dim : run.k_dim};
    if (!kind_.paged) return Address(tensor, {token, head, dim});

    const Step block = {static_cast<uint64_t>(table_[index.token / kind_.block_tokens]), blocks_};
    const Step slot = {index.token % kind_.block_tokens, kind_.block_tokens};
    const bool nhd = kind_.block_order == BlockOrder::kNhd;
    const Step& third = nhd ? slot : head;
    const Step& fourth = nhd ? head : slot;
    if (!joint) return Address(tensor, {block, third, fourth, dim});
    if (kind_.pool_order == PoolOrder::kKvBlocks) return Address(tensor, {half, block, third, fourth, dim});
    return Address(tensor, {block, half, third, fourth, dim});
  }

  // Fills all elements of all tokens with random values of the memory's type.
  void FillWithNoise(const KvSpace& space, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    ForEachElement(space, tokens_, [&](const LayerRun& run, const ElementIndex& index) {
      const float value = normal(random);
      if (Holds(run, index.head)) {
        ReferenceCopy(DType::kF32, reinterpret_cast<const uint8_t*>(&value), kind_.dtype, At(run, index));
      }
    });
  }

  // Copies the elements of `source`'s tokens [first, end) that both hold to `offset` tokens further on, one by one.
  void CopyFrom(const KvSpace& space, KvMemory& source, uint32_t first, uint32_t end, uint32_t offset = 0) {
    ForEachElement(space, end, [&](const LayerRun& run, ElementIndex index) {
      if (index.token < first || !Holds(run, index.head)) return;
      const uint8_t* const from = source.At(run, index);
      index.token += offset;
      ReferenceCopy(source.kind_.dtype, from, kind_.dtype, At(run, index));
    });
  }

  KvLayout layout() {
    const auto addresses = [](std::vector<std::vector<uint8_t>>& tensors) {
      std::vector<uint8_t*> pointers;
      for (std::vector<uint8_t>& tensor : tensors) pointers.push_back(tensor.empty() ? nullptr : &tensor[kGuard]);
      return pointers;
    };
    const bool separate = !kind_.paged || kind_.pool_order == PoolOrder::kSeparate;
    std::vector<uint8_t*> v;
    if (separate) v = addresses(v_);
    if (!kind_.paged) {
      return ContiguousKv{
          .k = addresses(k_), .v = v, .capacity_tokens = tokens_, .heads = kind_.heads, .dtype = kind_.dtype};
    }
    return PagedKv{.pool_order = kind_.pool_order,
                   .block_order = kind_.block_order,
                   .k = addresses(k_),
                   .v = v,
                   .blocks = blocks_,
                   .block_tokens = kind_.block_tokens,
                   .block_table = table_,
                   .heads = kind_.heads,
                   .dtype = kind_.dtype};
  }

  std::vector<int32_t>& table() { return table_; }

  // Equal in every byte, poison included.
  friend bool operator==(const KvMemory& a, const KvMemory& b) { return a.k_ == b.k_ && a.v_ == b.v_; }

 private:
  static constexpr size_t kGuard = 67;  // bytes before and after a tensor; odd, so that nothing is aligned
  static constexpr uint8_t kPoison = 0xA5;
  using Step = std::pair<uint64_t, uint64_t>;  // an index, and the size of its dimension

  bool Joint(const LayerRun& run) const {
    return kind_.paged && kind_.pool_order != PoolOrder::kSeparate && run.stored == StoredKind::kKv;
  }
  uint64_t Heads(const LayerRun& run) const { return std::min(kind_.heads.end, run.kv_heads) - kind_.heads.begin; }

  std::vector<uint8_t> Tensor(const LayerRun& run, uint32_t dim, uint64_t halves) const {
    const uint64_t tokens = kind_.paged ? uint64_t{blocks_} * kind_.block_tokens : tokens_;
    return std::vector<uint8_t>(halves * tokens * Heads(run) * dim * DTypeSize(kind_.dtype) + 2 * kGuard, kPoison);
  }

  // Of the element of a row-major tensor.
  uint8_t* Address(std::vector<uint8_t>& tensor, std::initializer_list<Step> steps) const {
    uint64_t element = 0;
    for (const auto& [index, size] : steps) element = element * size + index;
    return &tensor.at(kGuard + element * DTypeSize(kind_.dtype));
  }

  MemoryKind kind_;
  uint32_t tokens_;
  uint32_t blocks_ = 0;
  std::vector<int32_t> table_;
  std::vector<std::vector<uint8_t>> k_;  // by layer, with guards
  std::vector<std::vector<uint8_t>> v_;
};

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_KV_MEMORY_H_
