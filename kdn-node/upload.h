// Upload: a chunk that a peer is sending to be stored, whichever protocol it comes by.
//
//   KDN_ASSIGN_OR_RETURN(Upload upload, BeginUpload(state, begin));
//   upload.assembler.Add(…);
//   absl::Status stored = CommitUpload(state, std::move(upload));
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_UPLOAD_H_
#define KDN_KDN_NODE_UPLOAD_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-node/byte_budget.h"
#include "kdn-node/service_state.h"
#include "kdn/v1/node.pb.h"
#include "storage/chunk.h"
#include "storage/chunk_assembler.h"

namespace kdn {

struct Upload {
  ChunkAssembler assembler;
  Ack ack = Ack::kMemory;
  Retention retention = {};
  ByteReservation reservation;  // for all slabs of the chunk
};

// RESOURCE_EXHAUSTED while other uploads hold the budget; INVALID_ARGUMENT or DATA_LOSS when `begin` is malformed.
absl::StatusOr<Upload> BeginUpload(ServiceState& state, const v1::StoreBegin& begin);

// Verifies and stores the chunk; may wait for disks.
absl::Status CommitUpload(ServiceState& state, Upload upload);

}  // namespace kdn

#endif  // KDN_KDN_NODE_UPLOAD_H_
