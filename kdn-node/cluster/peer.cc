#include "kdn-node/cluster/peer.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <set>
#include <utility>

#include "kdn-client/node_channel.h"
#include "kdn-client/raw_call.h"
#include "kdn/v1/peer.grpc.pb.h"
#include "proto/wire/trace_metadata.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kDigestsTimeout = absl::Seconds(10);
constexpr absl::Duration kListTimeout = absl::Seconds(60);
// A time to live that is longer is none: sums with it must stay in range.
constexpr uint64_t kLongestTtlMs = uint64_t{1} << 53;

void Fill(uint32_t bits, std::span<const Partition> partitions, v1::PartitionSet& set) {
  set.set_partition_bits(bits);
  set.mutable_partitions()->Add(partitions.begin(), partitions.end());
}

absl::StatusOr<PeerChunk> ChunkFromWire(const v1::ListedChunk& wire, absl::Time now) {
  PeerChunk chunk;
  KDN_ASSIGN_OR_RETURN(chunk.space, SpaceId::FromBytes(AsBytes(wire.space_id())));
  KDN_ASSIGN_OR_RETURN(chunk.key, ChunkKey::FromBytes(AsBytes(wire.key())));
  chunk.encoded_bytes = wire.encoded_bytes();
  chunk.retention.lossy_allowed = wire.lossy_allowed();
  if (wire.ttl_ms() > 0) {
    chunk.retention.expires = now + absl::Milliseconds(std::min(wire.ttl_ms(), kLongestTtlMs));
  }
  chunk.durable = wire.durable();
  return chunk;
}

class RemotePeer final : public Peer {
 public:
  explicit RemotePeer(const std::string& address)
      : address_(address),
        channel_(address),
        stub_(v1::PeerService::NewStub(channel_.grpc())),
        transport_(MakeRemoteTransport(address, {.asker = Asker::kNode})) {}

  absl::StatusOr<std::vector<PartitionDigest>> Digests(uint32_t bits, std::span<const Partition> partitions,
                                                       Cancellation* cancel) override {
    v1::DigestsRequest request;
    Fill(bits, partitions, *request.mutable_partitions());
    grpc::ClientContext context;
    const Cancellation::Link link(cancel, [&] { context.TryCancel(); });
    Prepare(context, kDigestsTimeout);
    v1::DigestsResponse response;
    KDN_RETURN_IF_ERROR(Named(FromGrpc(stub_->Digests(&context, request, &response))));
    const auto asked = static_cast<int>(partitions.size());
    if (response.digests_size() != asked || response.chunks_size() != asked) {
      return Named(DataLoss("{} digests came for {} partitions", response.digests_size(), asked));
    }
    std::vector<PartitionDigest> digests(partitions.size());
    for (int i = 0; i < asked; ++i) {
      digests[static_cast<size_t>(i)] = {.digest = response.digests(i), .chunks = response.chunks(i)};
    }
    return digests;
  }

  absl::Status ListChunks(uint32_t bits, std::span<const Partition> partitions, Cancellation* cancel,
                          absl::FunctionRef<bool(const PeerChunk&)> visit) override {
    v1::ListChunksRequest request;
    Fill(bits, partitions, *request.mutable_partitions());
    grpc::ClientContext context;
    const Cancellation::Link link(cancel, [&] { context.TryCancel(); });
    Prepare(context, kListTimeout);
    const auto reader = stub_->ListChunks(&context, request);
    const std::set<Partition> asked(partitions.begin(), partitions.end());
    absl::Status broken;
    bool enough = false;
    v1::ListChunksPage page;
    while (broken.ok() && !enough && reader->Read(&page)) {
      const absl::Time now = Clock::Real().Now();
      for (const v1::ListedChunk& listed : page.chunks()) {
        const absl::StatusOr<PeerChunk> chunk = ChunkFromWire(listed, now);
        if (!chunk.ok()) {
          broken = DataLoss("it lists a chunk that is none: {}", MessageOf(chunk.status()));
        } else if (!asked.contains(Topology::PartitionOf(chunk->key, bits))) {
          broken = DataLoss("it lists chunk {}, which is of no partition that was asked for", chunk->key.ToShortHex());
        } else if (!visit(*chunk)) {
          enough = true;
        }
        if (!broken.ok() || enough) break;
      }
    }
    if (!broken.ok() || enough) context.TryCancel();
    const absl::Status ended = FromGrpc(reader->Finish());
    return enough ? absl::OkStatus() : Named(broken.ok() ? ended : broken);
  }

  std::string address() const override { return address_; }
  Transport& transport() override { return *transport_; }

 private:
  void Prepare(grpc::ClientContext& context, absl::Duration timeout) {
    const absl::Time deadline = Clock::Real().Now() + timeout;
    channel_.Prepare(deadline);
    context.set_deadline(absl::ToChronoTime(deadline));
    wire::SendTrace(context);
  }

  absl::Status Named(const absl::Status& status) const { return Annotate(status, "node " + address_); }

  const std::string address_;
  NodeChannel channel_;
  const std::unique_ptr<v1::PeerService::Stub> stub_;
  const std::shared_ptr<Transport> transport_;
};

}  // namespace

std::shared_ptr<Peer> ConnectToPeer(const std::string& address) { return std::make_shared<RemotePeer>(address); }

std::shared_ptr<Peer> PeerDirectory::At(const std::string& address) {
  MutexLock lock(mu_);
  std::shared_ptr<Peer>& peer = peers_[address];
  if (peer == nullptr) peer = connect_(address);
  return peer;
}

void PeerDirectory::KeepOnly(const Topology& topology) {
  std::set<std::string> known;
  for (const NodeInfo& node : topology.parts().nodes) known.insert(node.address);
  std::vector<std::shared_ptr<Peer>> gone;  // ends without the lock
  MutexLock lock(mu_);
  for (auto it = peers_.begin(); it != peers_.end();) {
    if (known.contains(it->first)) {
      ++it;
    } else {
      gone.push_back(std::move(it->second));
      it = peers_.erase(it);
    }
  }
}

}  // namespace kdn
