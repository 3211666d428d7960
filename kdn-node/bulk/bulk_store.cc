#include "kdn-node/bulk/bulk_store.h"

#include <algorithm>
#include <utility>

#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"
#include "storage/format/manifest.h"

namespace kdn {
namespace {

// What is read at a time of a chunk that is not kept.
constexpr size_t kRefusedRoom = size_t{256} << 10;

}  // namespace

BulkStore::BulkStore(ServiceState& state, const CallOrigin& origin, uint32_t chunks)
    : state_(state), record_(state, Method::kStore, origin), chunks_(chunks) {}

BulkStore::~BulkStore() {
  if (!ended_) End(Cancelled("the peer left"));
}

absl::Status BulkStore::BeginChunk(ByteSpan begin, uint64_t data_bytes) {
  if (statuses_.size() == chunks_) return InvalidArgument("more than the {} chunks that were announced", chunks_);
  if (data_bytes > kMaxChunkBytes) {
    return InvalidArgument("a chunk of {} bytes; at most {} are allowed", data_bytes, kMaxChunkBytes);
  }
  v1::StoreBegin message;
  if (!message.ParseFromArray(begin.data(), static_cast<int>(begin.size()))) {
    return InvalidArgument("malformed frame: its message is not a StoreBegin");
  }
  absl::StatusOr<Upload> upload = BeginUpload(state_, message);
  if (upload.ok() && upload->assembler.manifest()->EncodedBytes() != data_bytes) {
    return InvalidArgument("a chunk comes with {} bytes; its manifest names {}", data_bytes,
                           upload->assembler.manifest()->EncodedBytes());
  }
  statuses_.push_back(upload.status());
  receiving_ = true;
  awaited_ = data_bytes;
  slab_ = 0;
  slab_left_ = 0;
  if (!upload.ok()) return absl::OkStatus();
  if (!space_.has_value()) space_ = upload->assembler.manifest()->space;
  slab_left_ = upload->assembler.manifest()->slabs.empty() ? 0 : upload->assembler.manifest()->slabs[0].encoded_size;
  upload_.emplace(*std::move(upload));
  return absl::OkStatus();
}

MutableByteSpan BulkStore::Room() {
  if (!upload_.has_value()) {
    if (refused_.size() == 0) refused_ = Buffer(kRefusedRoom);
    return refused_.span().first(std::min<uint64_t>(awaited_, kRefusedRoom));
  }
  while (slab_left_ == 0) slab_left_ = upload_->assembler.manifest()->slabs[++slab_].encoded_size;
  return upload_->assembler.Room(slab_);
}

void BulkStore::Received(uint64_t bytes) {
  state_.metrics.Received(bytes);
  received_bytes_ += bytes;
  awaited_ -= bytes;
  if (!upload_.has_value()) return;
  upload_->assembler.Received(slab_, bytes);
  slab_left_ -= bytes;
}

void BulkStore::EndChunk() {
  receiving_ = false;
  if (upload_.has_value()) statuses_.back() = CommitUpload(state_, *std::exchange(upload_, std::nullopt));
  state_.metrics.Stored(statuses_.back());
}

v1::StoreResponse BulkStore::End(const absl::Status& status) {
  ended_ = true;
  v1::StoreResponse response;
  for (const absl::Status& chunk : statuses_) *response.add_chunks() = ToWire(chunk);
  if (RequestRecord* const request = record_.request(); request != nullptr) {
    request->About(space_, chunks_);
    request->Received(received_bytes_);
    for (const absl::Status& chunk : statuses_) request->Done(chunk);
  }
  record_.End(status);
  return response;
}

}  // namespace kdn
