// BulkStore: a store that comes by the bulk protocol, chunk by chunk; slabs are received straight into the memory that
// the tiers keep them in.
//
//   KDN_RETURN_IF_ERROR(store.BeginChunk(message, data_bytes));
//   while (store.awaited() > 0) store.Received(ReceiveInto(store.Room()));
//   store.EndChunk();
//   if (store.all_here()) Send(store.End());
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_BULK_BULK_STORE_H_
#define KDN_KDN_NODE_BULK_BULK_STORE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "kdn-node/call_record.h"
#include "kdn-node/service_state.h"
#include "kdn-node/upload.h"
#include "kdn/v1/node.pb.h"
#include "storage/base/buffer.h"

namespace kdn {

class BulkStore {
 public:
  // For `chunks` chunks.
  BulkStore(ServiceState& state, const CallOrigin& origin, uint32_t chunks);
  // A store that did not End was cut short by its peer.
  ~BulkStore();
  BulkStore(const BulkStore&) = delete;
  BulkStore& operator=(const BulkStore&) = delete;

  bool all_here() const { return statuses_.size() == chunks_ && !receiving_; }
  // A chunk has begun and has not ended.
  bool receiving() const { return receiving_; }

  // INVALID_ARGUMENT when what comes next cannot be told any more. A chunk that is refused is received all the same,
  // and told in its status.
  absl::Status BeginChunk(ByteSpan begin, uint64_t data_bytes);

  // How many of the chunk's bytes are still to come, and where the next of them go; never empty while some are.
  uint64_t awaited() const { return awaited_; }
  MutableByteSpan Room();
  void Received(uint64_t bytes);

  // Verifies and stores the chunk; may wait for disks.
  void EndChunk();

  // Counts the store as ended so, and gives the fate of each chunk.
  v1::StoreResponse End(const absl::Status& status);

 private:
  ServiceState& state_;
  const CallRecord record_;
  const uint32_t chunks_;
  std::vector<absl::Status> statuses_;
  bool receiving_ = false;
  uint64_t awaited_ = 0;
  std::optional<Upload> upload_;  // the present chunk, unless it was refused
  uint32_t slab_ = 0;             // of it, and how much of that is still to come
  uint64_t slab_left_ = 0;
  Buffer refused_;  // takes the bytes of refused chunks
  bool ended_ = false;
  std::optional<SpaceId> space_;  // of the first chunk
  uint64_t received_bytes_ = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_BULK_BULK_STORE_H_
