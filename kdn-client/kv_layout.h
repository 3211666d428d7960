// KvLayout: how an engine keeps the KV cache of one sequence in its memory, so that chunks are fetched into it and
// stored out of it where it stands.
//
//   PagedKv kv = {.pool_order = PoolOrder::kKvBlocks,     // vLLM: [2, blocks, block, heads, dim]
//                 .block_order = BlockOrder::kNhd,
//                 .k = pools,                             // one address a layer
//                 .blocks = 4096,
//                 .block_tokens = 16,
//                 .block_table = table,                   // of this sequence
//                 .heads = {.begin = 2, .end = 4}};       // rank 1 of a model that is split in two
//   client->Fetch(hit.HitChunks(), kv, {});
//
// Tensors are row-major and little-endian, without gaps, at any alignment. `heads` and `dim` in a shape are the heads
// that the memory holds (`HeadRange`) and the k_dim or v_dim of the layer. Layers are numbered as in the space, from 0;
// a layer that a call's layer range leaves out may have null for an address.
//
// Heads. An engine of a tensor-parallel group names those that it holds, which must be a range of every layer that a
// call touches; where layers differ in heads, call by layer range. A fetch then asks for these heads alone, and where
// the node can cut them out of what it has stored, no others travel. Chunks are stored whole, so memory that does not
// hold all heads can be fetched into but not stored from.
//
// Element types. The memory's dtype is the space's unless it says otherwise; bf16, f16 and f32 are converted into each
// other on the way in and on the way out. Values are rounded to nearest, ties to even; NaN stays NaN (not its payload);
// what is beyond f16's largest value becomes an infinity. bf16 to f32 and f16 to f32 are exact, all others may round.
// Fidelity speaks of the chunk, which is in the space's dtype, and knows nothing of a conversion:
//   - Stored from f16 or bf16 into a space of f32, values are kept exactly, and a fetch into memory of the type that
//     they came from gives them back. They are no more precise for being kept wide, and nobody can tell.
//   - Stored from f32 into a space of 16 bits, or between bf16 and f16, values are rounded into the space's dtype, just
//     as an engine whose cache has that dtype rounds them. That makes the chunk what the space says it is, so it is
//     kExact; but what comes back is the rounded values, not the bits that the engine had.
//   - An infinity made by rounding is stored as one. A model whose KV does not fit f16 needs a space of another dtype.
//
// Thread-safety: plain values. They refer to the engine's memory and block table and own neither; both must stay where
// they are, and the table unchanged, until the call that was given them returns. Calls at once may share a pool as long
// as they write different blocks.
#ifndef KDN_KDN_CLIENT_KV_LAYOUT_H_
#define KDN_KDN_CLIENT_KV_LAYOUT_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "storage/chunk.h"
#include "storage/format/kv_space.h"

namespace kdn {

// Positions [begin, end) of a sequence, in tokens.
struct TokenRange {
  uint32_t begin = 0;
  uint32_t end = std::numeric_limits<uint32_t>::max();

  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

// Where a chunk goes in a sequence, and what of it is taken.
struct ChunkPlace {
  int64_t at = 0;        // position of its first token; where it is below 0, tokens before position 0 are not taken
  TokenRange take = {};  // of its tokens, counted from its first
};

// Contiguous by layer: K of layer l is [capacity_tokens, heads, k_dim] at k[l], V is [capacity_tokens, heads, v_dim] at
// v[l] (null where the space stores no V). Both vectors have an entry for each layer of the space.
struct ContiguousKv {
  std::vector<uint8_t*> k = {};
  std::vector<uint8_t*> v = {};
  uint32_t capacity_tokens = 0;
  HeadRange heads = {};
  std::optional<DType> dtype = std::nullopt;  // the space's, unless given
};

// How the blocks of a layer's K and V lie in its pool. `block` stands for a block of one tensor (BlockOrder). A layer
// that has one tensor only (K alone, or a joint latent) has its pool as [blocks, block] in every order.
enum class PoolOrder : uint8_t {
  kKvBlocks,  // one tensor, K before V: [2, blocks, block]; needs k_dim = v_dim
  kBlocksKv,  // one tensor, K beside V: [blocks, 2, block]; needs k_dim = v_dim
  kSeparate,  // two tensors, [blocks, block] each
};

// How a block lies in memory.
enum class BlockOrder : uint8_t {
  kNhd,  // [block_tokens, heads, dim]
  kHnd,  // [heads, block_tokens, dim]
};

// Paged: token t of the sequence lies at slot t % block_tokens of block block_table[t / block_tokens].
struct PagedKv {
  PoolOrder pool_order = PoolOrder::kKvBlocks;
  BlockOrder block_order = BlockOrder::kNhd;
  std::vector<uint8_t*> k = {};  // by layer: its pool; with kSeparate, the pool of its K
  std::vector<uint8_t*> v = {};  // by layer: the pool of its V (null where the space stores no V); kSeparate only
  uint32_t blocks = 0;           // of each pool
  uint32_t block_tokens = 0;     // of a block: 1 or more; no relation to the space's chunk_tokens is needed
  // The sequence's blocks, numbers below `blocks`. Entries for tokens that a call does not touch are not looked at. A
  // block named twice is written twice, and holds the later tokens.
  std::span<const int32_t> block_table = {};
  HeadRange heads = {};
  std::optional<DType> dtype = std::nullopt;  // the space's, unless given
};

// What Client::Fetch writes and Client::Store reads.
using KvLayout = std::variant<ContiguousKv, PagedKv>;

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_KV_LAYOUT_H_
