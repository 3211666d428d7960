// EncodeChunk: a chunk of an engine's memory, encoded and with its manifest, as it is stored and sent.
//
// Thread-safety: a pure function; the memory must not change meanwhile.
#ifndef KDN_KDN_CLIENT_CHUNK_ENCODER_H_
#define KDN_KDN_CLIENT_CHUNK_ENCODER_H_

#include "absl/status/statusor.h"
#include "kdn-client/kv_view.h"
#include "storage/chunk.h"
#include "storage/format/codec.h"

namespace kdn {

// `chunk` lies in `source` at its first_token and has passed KvView's checks, that for all heads included. A slab that
// a lossless codec does not make smaller is kept raw. The chunk's fidelity is that of the least exact codec used.
absl::StatusOr<Chunk> EncodeChunk(const SpaceId& id, const KvSpace& space, const ChunkRef& chunk, const KvView& source,
                                  const Codec& codec);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CHUNK_ENCODER_H_
