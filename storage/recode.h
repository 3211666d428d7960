// Recode: a chunk, encoded by another codec: what a colder tier does to chunks that come down to it.
//
// Thread-safety: may be called from any thread.
#ifndef KDN_STORAGE_RECODE_H_
#define KDN_STORAGE_RECODE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/chunk.h"
#include "storage/disk/io_pool.h"
#include "storage/format/codec.h"

namespace kdn {

// `chunk` (verified) with those of its slabs encoded by `codec` that get smaller by it; slabs that are lossy already
// are left alone, so that errors do not add up. Its fidelity falls to that of the least exact codec used. A lossy
// `codec` is taken as it is given: whether the chunk allows it is for the caller to ask. Slabs are coded side by side,
// on this thread and those of `pool` that are idle.
// DATA_LOSS: a slab does not decode. INVALID_ARGUMENT: the codec cannot encode slabs of this kind.
absl::StatusOr<Chunk> Recode(const Chunk& chunk, const Codec& codec, IoPool& pool);

// The same for one slab, whose `bytes` are verified: both are as they were unless the slab gets smaller. Errors as
// Recode.
absl::Status RecodeSlab(const Codec& codec, const EncodeHints& hints, SlabInfo& slab, SharedBuffer& bytes);

}  // namespace kdn

#endif  // KDN_STORAGE_RECODE_H_
