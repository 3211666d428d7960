#include "kdn-node/cluster/peer_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kdn-node/call_record.h"
#include "kdn-node/step_stream.h"
#include "kdn-node/wire_convert.h"
#include "kdn/v1/peer.grpc.pb.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kPageChunks = 1024;

struct Partitions {
  uint32_t bits = 0;
  std::vector<Partition> list;
};

absl::StatusOr<Partitions> ParsePartitions(const v1::PartitionSet& set) {
  const uint32_t bits = set.partition_bits();
  if (bits < kMinPartitionBits || bits > kMaxPartitionBits) {
    return InvalidArgument("partition_bits is {}; give {} to {}", bits, kMinPartitionBits, kMaxPartitionBits);
  }
  const uint32_t count = uint32_t{1} << bits;
  if (static_cast<uint32_t>(set.partitions_size()) > count) {
    return InvalidArgument("{} partitions are named; there are {}", set.partitions_size(), count);
  }
  Partitions partitions = {.bits = bits, .list = {set.partitions().begin(), set.partitions().end()}};
  const auto bad = std::ranges::find_if(partitions.list, [&](Partition partition) { return partition >= count; });
  if (bad != partitions.list.end()) {
    return InvalidArgument("partition {} is out of range; with {} partition_bits there are {}", *bad, bits, count);
  }
  return partitions;
}

class ListStream final : public StepStream<v1::ListChunksPage> {
 public:
  ListStream(ServiceState& state, const CallOrigin& origin, PartitionIndexCache& indexes, Seats& seats,
             Partitions partitions)
      : StepStream(state, seats, Method::kListChunks, origin), indexes_(indexes), partitions_(std::move(partitions)) {
    std::ranges::sort(partitions_.list);
    std::vector<Partition>& list = partitions_.list;
    list.erase(std::unique(list.begin(), list.end()), list.end());
  }

 private:
  absl::StatusOr<bool> Make(v1::ListChunksPage& page) override {
    if (index_ == nullptr) index_ = indexes_.Get();
    while (page.chunks_size() < kPageChunks && at_ < partitions_.list.size() && !Ending()) {
      const std::span<const ChunkKey> keys = index_->KeysOf(partitions_.list[at_], partitions_.bits);
      if (key_ == keys.size()) {
        ++at_;
        key_ = 0;
      } else {
        Add(keys[key_++], page);
      }
    }
    return page.chunks_size() > 0;
  }

  // What is gone since the index was made is passed over.
  void Add(const ChunkKey& key, v1::ListChunksPage& page) {
    const absl::StatusOr<ChunkDescription> chunk = state().store.Describe(key);
    if (!chunk.ok()) return;
    const absl::Time now = state().clock.Now();
    const absl::Time expires = chunk->retention.expires;
    if (expires <= now) return;
    v1::ListedChunk& listed = *page.add_chunks();
    listed.set_space_id(std::string(AsStringView(chunk->manifest->space.span())));
    listed.set_key(std::string(AsStringView(key.span())));
    listed.set_encoded_bytes(chunk->manifest->EncodedBytes());
    if (expires != absl::InfiniteFuture()) {
      listed.set_ttl_ms(static_cast<uint64_t>(std::max<int64_t>(1, absl::ToInt64Milliseconds(expires - now))));
    }
    listed.set_lossy_allowed(chunk->retention.lossy_allowed);
    listed.set_durable(chunk->on_disk);
    listed.set_fidelity(static_cast<uint32_t>(ToWire(chunk->manifest->fidelity)));
  }

  PartitionIndexCache& indexes_;
  Partitions partitions_;
  std::shared_ptr<const PartitionIndex> index_;
  size_t at_ = 0;   // in partitions_.list
  size_t key_ = 0;  // among the keys of that partition
};

class PeerServiceImpl final : public v1::PeerService::CallbackService {
 public:
  PeerServiceImpl(ServiceState& state, PartitionIndexCache& indexes) : state_(state), indexes_(indexes) {}

  grpc::ServerUnaryReactor* Digests(grpc::CallbackServerContext* context, const v1::DigestsRequest* request,
                                    v1::DigestsResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const CallRecord record(state_, Method::kDigests, {.context = context});
    absl::Status refused = state_.Admit();
    if (refused.ok() && !digests_.Take()) refused = digests_.NoneLeft("requests for digests");
    if (!refused.ok()) {
      reactor->Finish(record.End(refused));
      return reactor;
    }
    state_.pool.Submit([=, this] {
      record.Begun();
      const absl::Status status = AnswerDigests(*request, *response);
      digests_.GiveBack();
      reactor->Finish(record.End(status));
    });
    return reactor;
  }

  grpc::ServerWriteReactor<v1::ListChunksPage>* ListChunks(grpc::CallbackServerContext* context,
                                                           const v1::ListChunksRequest* request) override {
    const CallOrigin origin = {.context = context};
    using Refused = RefusedCall<grpc::ServerWriteReactor<v1::ListChunksPage>>;
    if (absl::Status refused = state_.Admit(); !refused.ok())
      return new Refused(state_, Method::kListChunks, origin, refused);
    absl::StatusOr<Partitions> partitions = ParsePartitions(request->partitions());
    if (!partitions.ok()) return new Refused(state_, Method::kListChunks, origin, partitions.status());
    if (!listings_.Take()) return new Refused(state_, Method::kListChunks, origin, listings_.NoneLeft("listings"));
    auto* reactor = new ListStream(state_, origin, indexes_, listings_, *std::move(partitions));
    reactor->Start();
    return reactor;
  }

 private:
  absl::Status AnswerDigests(const v1::DigestsRequest& request, v1::DigestsResponse& response) {
    KDN_ASSIGN_OR_RETURN(const Partitions partitions, ParsePartitions(request.partitions()));
    const std::shared_ptr<const PartitionIndex> index = indexes_.Get();
    for (const Partition partition : partitions.list) {
      const PartitionDigest digest = index->DigestOf(partition, partitions.bits);
      response.add_digests(digest.digest);
      response.add_chunks(digest.chunks);
    }
    return absl::OkStatus();
  }

  ServiceState& state_;
  PartitionIndexCache& indexes_;
  Seats digests_{kMaxPeerDigests};
  Seats listings_{kMaxPeerListings};
};

}  // namespace

std::unique_ptr<grpc::Service> MakePeerService(ServiceState& state, PartitionIndexCache& indexes) {
  return std::make_unique<PeerServiceImpl>(state, indexes);
}

}  // namespace kdn
