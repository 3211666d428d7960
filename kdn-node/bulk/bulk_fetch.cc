#include "kdn-node/bulk/bulk_fetch.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kdn-node/analytics_calls.h"
#include "proto/wire/bulk_frame.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{4} << 20;
// Results have no slab bytes, but a manifest each; these bound a batch of many.
constexpr int kBatchItems = 1024;
constexpr size_t kBatchManifestBytes = size_t{1} << 20;
// A chunk that is recoded is read whole up to this size; a larger one travels as it is stored.
constexpr uint64_t kMaxRecodedBytes = uint64_t{256} << 20;

}  // namespace

BulkFetch::BulkFetch(ServiceState& state, const CallOrigin& origin, FetchCall call, Time deadline, bool lend)
    : state_(state),
      record_(state, Method::kFetch, origin),
      chunks_(call.what.keys.size()),
      deadline_(deadline),
      lend_(lend),
      reader_(MakeFetchReader(state.store, std::move(call))),
      recoding_(state.fetches) {}

BulkFetch::~BulkFetch() {
  if (!ended_) End(Cancelled("the peer left"));
}

BulkBatch BulkFetch::Next() {
  recoding_.ShrinkTo(0);  // the batch before is sent
  v1::BulkSlabs slabs;
  BulkBatch batch;
  uint64_t bytes = 0;
  uint64_t inline_bytes = 0;
  size_t manifest_bytes = 0;
  while (!reader_->done() && bytes < kBatchBytes && slabs.items_size() < kBatchItems &&
         manifest_bytes < kBatchManifestBytes) {
    uint64_t allowed = kBatchBytes - bytes;
    if (reader_->recodes()) allowed = std::max(allowed, RecodableBytes());
    for (FetchItem& item : reader_->Step(allowed)) {
      bytes += item.bytes.size();
      manifest_bytes += item.manifest.size();
      AddItem(std::move(item), slabs, batch, inline_bytes);
    }
  }
  state_.metrics.Sent(bytes);
  if (bytes > 0) record_.Sent(bytes);
  state_.metrics.Lent(batch.lent_bytes);
  batch.frame = wire::EncodeBulkFrame(wire::BulkType::kSlabs, slabs, inline_bytes);
  return batch;
}

uint64_t BulkFetch::RecodableBytes() {
  const uint64_t wanted = std::min(reader_->NextBytes(), kMaxRecodedBytes);
  if (wanted > kBatchBytes && wanted > recoding_.bytes() && !recoding_.Grow(wanted - recoding_.bytes())) return 0;
  return wanted;
}

void BulkFetch::AddItem(FetchItem item, v1::BulkSlabs& slabs, BulkBatch& batch, uint64_t& inline_bytes) const {
  v1::BulkItem& out = *slabs.add_items();
  out.set_chunk(item.chunk);
  if (item.is_result) {
    v1::ChunkResult& result = *out.mutable_result();
    result.set_miss(ToWire(item.miss.reason));
    result.set_detail(WireText(std::move(item.miss.detail)));
    result.set_tier(ToWire(item.tier));
    result.set_manifest(std::move(item.manifest));
    return;
  }
  const uint64_t size = item.bytes.size();
  out.set_slab(item.slab);
  out.set_bytes(size);
  const std::optional<uint64_t> offset = lend_ ? state_.store.arena()->OffsetOf(item.bytes) : std::nullopt;
  if (offset.has_value()) {
    out.set_shared(true);
    out.set_offset(*offset);
    batch.lent_bytes += size;
    batch.lent.push_back(std::move(item.bytes));
  } else {
    inline_bytes += size;
    batch.data.push_back(std::move(item.bytes));
  }
}

void BulkFetch::End(const absl::Status& status) {
  ended_ = true;
  const uint64_t unanswered = CountFetched(*reader_, chunks_, state_.metrics);
  if (!status.ok()) state_.metrics.Fetched(MissFromStatus(status).reason, unanswered);
  RecordFetch(state_, record_, *reader_, MissFromStatus(status).reason);
  record_.End(status);
}

}  // namespace kdn
