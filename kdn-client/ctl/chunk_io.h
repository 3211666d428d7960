// Whole chunks by a transport, encoded as they are stored.
//
// Thread-safety: pure functions of their arguments; they block.
#ifndef KDN_KDN_CLIENT_CTL_CHUNK_IO_H_
#define KDN_KDN_CLIENT_CTL_CHUNK_IO_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/transport.h"
#include "storage/chunk.h"

namespace kdn::ctl {

// One answer for each key, in order: the chunk, every slab checked against its manifest, or why it did not come.
// Retentions are not known. All of the chunks are in memory at once.
std::vector<absl::StatusOr<Chunk>> FetchChunks(Transport& transport, const SpaceId& space,
                                               std::span<const ChunkKey> keys, absl::Time deadline);

// NOT_FOUND for a chunk that is not held, and what fits for other reasons.
absl::Status StatusOfMiss(const ChunkKey& key, const Miss& miss);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_CHUNK_IO_H_
