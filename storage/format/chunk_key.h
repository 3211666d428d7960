// Chunk keys: a SHA-256 chain over a segment's tokens (docs/formats.md, "Chunk key").
//
//   key_i = SHA-256("kdn/chunk/1" ‖ space_id ‖ key_{i-1} ‖ n u32le ‖ tokens u32le… ‖ extras)
//
// The first chunk's parent is 32 zero bytes. A key therefore names its tokens, all tokens before them, and the space.
// One chain serves prefix reuse and blending alike: a document prefilled alone is a segment of its own.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_FORMAT_CHUNK_KEY_H_
#define KDN_STORAGE_FORMAT_CHUNK_KEY_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/format/digest.h"

namespace kdn {

using Token = uint32_t;

// `extras` are opaque strings (image hashes and the like) that also decide the KV of this chunk; their order counts.
ChunkKey ComputeChunkKey(const SpaceId& space, const ChunkKey& parent, std::span<const Token> tokens,
                         std::span<const std::string> extras = {});

// A chunk of a segment: which tokens it covers and its place in the chain.
struct ChunkRef {
  ChunkKey key;
  ChunkKey parent;           // zero for the first chunk
  uint32_t first_token = 0;  // position in the segment
  uint32_t tokens = 0;
};

// The chain of `tokens`, cut every `chunk_tokens`. The last chunk may be shorter; it is left out when `whole_only`.
// INVALID_ARGUMENT when chunk_tokens is 0 or over kMaxChunkTokens.
absl::StatusOr<std::vector<ChunkRef>> ChunkChain(const SpaceId& space, uint32_t chunk_tokens,
                                                 std::span<const Token> tokens, bool whole_only = false);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_CHUNK_KEY_H_
