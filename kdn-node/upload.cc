#include "kdn-node/upload.h"

#include <algorithm>
#include <utility>

#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<Upload> BeginUpload(ServiceState& state, const v1::StoreBegin& begin) {
  KDN_ASSIGN_OR_RETURN(const Ack ack, ParseAck(begin.ack()));
  KDN_ASSIGN_OR_RETURN(ChunkAssembler assembler, ChunkAssembler::Start(AsBytes(begin.manifest()), state.store.arena()));
  ByteReservation reservation(state.uploads);
  const uint64_t bytes = assembler.manifest()->EncodedBytes();
  if (!reservation.Grow(bytes)) {
    return ResourceExhausted(
        "a chunk of {} bytes: uploads in progress hold {} of {}; retry later, or raise "
        "--max-upload-bytes",
        bytes, state.uploads.held(), state.uploads.limit());
  }
  Retention retention = {.lossy_allowed = begin.lossy_allowed()};
  if (begin.ttl_ms() > 0) {
    constexpr uint64_t kLongest = uint64_t{1} << 53;  // milliseconds; beyond it a duration loses them
    retention.expires = state.clock.Now() + absl::Milliseconds(std::min(begin.ttl_ms(), kLongest));
  }
  return Upload{
      .assembler = std::move(assembler), .ack = ack, .retention = retention, .reservation = std::move(reservation)};
}

absl::Status CommitUpload(ServiceState& state, Upload upload) {
  KDN_ASSIGN_OR_RETURN(Chunk chunk, std::move(upload.assembler).Finish());
  chunk.retention = upload.retention;
  absl::Status stored = state.store.Put(chunk, upload.ack, Checksums::kVerified);
  if (state.options.analytics != nullptr) state.options.analytics->Stored(*chunk.manifest, stored);
  return stored;
}

}  // namespace kdn
