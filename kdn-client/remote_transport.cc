#include <fmt/core.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "kdn-client/bulk/bulk_calls.h"
#include "kdn-client/call_rules.h"
#include "kdn-client/fetch_receiver.h"
#include "kdn-client/from_wire.h"
#include "kdn-client/node_channel.h"
#include "kdn-client/overload_pause.h"
#include "kdn-client/raw_call.h"
#include "kdn-client/transport.h"
#include "kdn/v1/node.grpc.pb.h"
#include "kdn/v1/node.pb.h"
#include "proto/wire/frames.h"
#include "proto/wire/trace_metadata.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

static_assert(kMaxChunksPerCall == wire::kMaxKeysPerCall);

std::string Joined(std::span<const ChunkKey> keys) {
  std::string joined;
  joined.reserve(keys.size() * kDigestSize);
  for (const ChunkKey& key : keys) joined += AsStringView(key.span());
  return joined;
}

// Calls `call(first, keys)` for as many keys at a time as one call may name, all under one trace.
template <typename Call>
absl::Status InBatches(std::span<const ChunkKey> keys, Call&& call) {
  const ScopedTrace trace(CurrentOrNewTrace());
  for (size_t first = 0; first < keys.size(); first += wire::kMaxKeysPerCall) {
    KDN_RETURN_IF_ERROR(call(first, keys.subspan(first, std::min(keys.size() - first, wire::kMaxKeysPerCall))));
  }
  return absl::OkStatus();
}

template <typename Statuses>
absl::StatusOr<std::vector<absl::Status>> StatusesFromWire(const Statuses& statuses, size_t expected) {
  if (static_cast<size_t>(statuses.size()) != expected) {
    return DataLoss("it answered for {} chunks of {}", statuses.size(), expected);
  }
  std::vector<absl::Status> result;
  result.reserve(expected);
  for (const v1::ChunkStatus& status : statuses) result.push_back(StatusFromWire(status));
  return result;
}

TierStats TierStatsFromWire(const v1::TierStats& wire) {
  return {.chunks = wire.chunks(),
          .bytes = wire.bytes(),
          .budget_bytes = wire.budget_bytes(),
          .puts = wire.puts(),
          .put_bytes = wire.put_bytes(),
          .hits = wire.hits(),
          .misses = wire.misses(),
          .read_bytes = wire.read_bytes(),
          .evictions = wire.evictions(),
          .evicted_bytes = wire.evicted_bytes(),
          .refused = wire.refused(),
          .corrupt = wire.corrupt(),
          .expired = wire.expired(),
          .bypassed = wire.bypassed()};
}

class RemoteTransport final : public Transport {
 public:
  RemoteTransport(const std::string& target, const RemoteOptions& options)
      : target_(target),
        options_(options),
        channel_(target),
        stub_(channel_.grpc()),
        raw_stub_(channel_.grpc()),
        bulk_(target, {.shared_memory = options.shared_memory}) {}

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    return LookupPart(space, keys, {}, least, deadline);
  }

  absl::StatusOr<std::vector<FoundChunk>> LookupPart(const SpaceId& space, std::span<const ChunkKey> keys,
                                                     std::span<const uint32_t> positions, Fidelity least,
                                                     absl::Time deadline) override {
    std::vector<FoundChunk> found;
    found.reserve(keys.size());
    const auto lookup = [&](size_t first, std::span<const ChunkKey> batch) -> absl::Status {
      v1::LookupRequest request = About<v1::LookupRequest>(space, batch);
      request.set_least_fidelity(static_cast<v1::Fidelity>(least));
      if (options_.asker != Asker::kEngine) {
        request.set_origin(static_cast<v1::CallOrigin>(options_.asker));
      } else if (positions.size() == keys.size()) {
        request.mutable_positions()->Add(positions.begin() + static_cast<ptrdiff_t>(first),
                                         positions.begin() + static_cast<ptrdiff_t>(first + batch.size()));
      } else if (first > 0) {
        for (size_t i = 0; i < batch.size(); ++i) request.add_positions(static_cast<uint32_t>(first + i));
      }
      KDN_ASSIGN_OR_RETURN(const v1::LookupResponse response, LookupBatch(request, deadline));
      if (static_cast<size_t>(response.chunks_size()) != batch.size()) {
        return Named(DataLoss("it answered for {} chunks of {}", response.chunks_size(), batch.size()));
      }
      for (const v1::ChunkFound& chunk : response.chunks()) {
        found.push_back({.miss = MissFromWire(chunk.miss(), chunk.detail()),
                         .manifest = nullptr,
                         .tier = TierFromWire(chunk.tier())});
      }
      return absl::OkStatus();
    };
    KDN_RETURN_IF_ERROR(InBatches(keys, lookup));
    return found;
  }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    return InBatches(query.keys, [&](size_t first, std::span<const ChunkKey> batch) -> absl::Status {
      KDN_RETURN_IF_ERROR(CheckTime(deadline));
      return Named(FetchBatch(query, first, batch, deadline, sink));
    });
  }

  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckCount(chunks.size()));
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    std::vector<absl::Status> statuses(chunks.size());
    std::vector<BulkChunk> outgoing;
    for (const Chunk& chunk : chunks) {
      absl::StatusOr<std::string> manifest = EncodeManifest(*chunk.manifest);
      statuses[static_cast<size_t>(&chunk - chunks.data())] = manifest.status();
      if (manifest.ok()) outgoing.push_back({.begin = BeginOf(chunk, *std::move(manifest), ack), .chunk = &chunk});
    }
    if (outgoing.empty()) return statuses;

    const ScopedTrace trace(CurrentOrNewTrace());  // of either protocol, if one is tried after the other
    const absl::StatusOr<v1::StoreResponse> response = StoreBatch(outgoing, ack, deadline);
    if (!response.ok()) return Named(response.status());
    absl::StatusOr<std::vector<absl::Status>> answers = StatusesFromWire(response->chunks(), outgoing.size());
    if (!answers.ok()) return Named(answers.status());
    for (size_t i = 0; i < outgoing.size(); ++i) {
      statuses[static_cast<size_t>(outgoing[i].chunk - chunks.data())] = std::move((*answers)[i]);
    }
    return statuses;
  }

  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    PrefetchCounts counts;
    const auto prefetch = [&](size_t, std::span<const ChunkKey> batch) -> absl::Status {
      v1::PrefetchResponse response;
      const auto request = About<v1::PrefetchRequest>(space, batch);
      KDN_RETURN_IF_ERROR(Unary(&v1::NodeService::Stub::Prefetch, request, response, deadline));
      counts.in_memory += response.in_memory();
      counts.coming += response.coming();
      counts.not_held += response.not_held();
      counts.refused += response.refused();
      return absl::OkStatus();
    };
    KDN_RETURN_IF_ERROR(InBatches(keys, prefetch));
    return counts;
  }

  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    std::vector<absl::Status> deleted;
    deleted.reserve(keys.size());
    const auto erase = [&](size_t, std::span<const ChunkKey> batch) -> absl::Status {
      v1::DeleteResponse response;
      const auto request = About<v1::DeleteRequest>(space, batch);
      KDN_RETURN_IF_ERROR(Unary(&v1::NodeService::Stub::Delete, request, response, deadline));
      absl::StatusOr<std::vector<absl::Status>> answers = StatusesFromWire(response.chunks(), batch.size());
      if (!answers.ok()) return Named(answers.status());
      std::move(answers->begin(), answers->end(), std::back_inserter(deleted));
      return absl::OkStatus();
    };
    KDN_RETURN_IF_ERROR(InBatches(keys, erase));
    return deleted;
  }

  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckCount(keys.size()));
    auto request = About<v1::PinRequest>(space, keys);
    // Less than a millisecond is still some time, and zero would be refused.
    const int64_t milliseconds = absl::ToInt64Milliseconds(absl::Ceil(duration, absl::Milliseconds(1)));
    request.set_duration_ms(static_cast<uint64_t>(std::max<int64_t>(milliseconds, 0)));
    v1::PinResponse response;
    const absl::Time asked = Clock::Real().Now();
    KDN_RETURN_IF_ERROR(Unary(&v1::NodeService::Stub::Pin, request, response, deadline));
    const uint64_t granted = std::min(response.granted_ms(), request.duration_ms());
    return Lease{.id = response.lease_id(),
                 .expires = asked + absl::Milliseconds(static_cast<int64_t>(granted)),
                 .pinned = response.pinned()};
  }

  absl::Status Unpin(uint64_t lease, absl::Time deadline) override {
    v1::UnpinRequest request;
    request.set_lease_id(lease);
    v1::UnpinResponse response;
    return Unary(&v1::NodeService::Stub::Unpin, request, response, deadline);
  }

  absl::StatusOr<StoreStats> Stats(absl::Time deadline) override {
    v1::StatsResponse response;
    KDN_RETURN_IF_ERROR(Unary(&v1::NodeService::Stub::Stats, v1::StatsRequest(), response, deadline));
    StoreStats stats;
    stats.memory = TierStatsFromWire(response.memory());
    if (response.has_disk()) stats.disks.push_back(TierStatsFromWire(response.disk()));
    for (const v1::TierStats& disk : response.cold_disks()) stats.disks.push_back(TierStatsFromWire(disk));
    for (uint8_t reason = 0; reason < kMissReasonCount; ++reason) {
      const auto results = response.fetch_results().find(std::string(MissReasonName(static_cast<MissReason>(reason))));
      if (results != response.fetch_results().end()) stats.misses[reason] = results->second;
    }
    stats.leases = response.leases();
    stats.pinned_chunks = response.pinned_chunks();
    stats.write_back_pending_bytes = response.write_back_pending_bytes();
    stats.write_back_dropped = response.write_back_dropped();
    stats.demoted = response.demoted();
    stats.promoted = response.promoted();
    stats.scrubbed_chunks = response.scrubbed_chunks();
    stats.scrubbed_bytes = response.scrubbed_bytes();
    return stats;
  }

 private:
  template <typename Request>
  static Request About(const SpaceId& space, std::span<const ChunkKey> keys) {
    Request request;
    request.set_space_id(std::string(AsStringView(space.span())));
    request.set_keys(Joined(keys));
    return request;
  }

  absl::Status Named(const absl::Status& status) const { return Annotate(status, "node " + target_); }

  absl::Status Prepare(absl::Time deadline) {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    channel_.Prepare(deadline);
    return absl::OkStatus();
  }

  template <typename Request, typename Response>
  absl::Status Unary(grpc::Status (v1::NodeService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                     const Request& request, Response& response, absl::Time deadline) {
    KDN_RETURN_IF_ERROR(Prepare(deadline));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    wire::SendTrace(context);
    return Named(FromGrpc((stub_.*method)(&context, request, &response)));
  }

  absl::Status FetchBatch(const FetchQuery& query, size_t first, std::span<const ChunkKey> batch, absl::Time deadline,
                          SlabSink& sink) {
    auto request = About<v1::FetchRequest>(query.space, batch);
    request.set_layer_begin(query.layers.begin);
    request.set_layer_end(query.layers.end == LayerRange().end ? 0 : query.layers.end);
    request.set_least_fidelity(static_cast<v1::Fidelity>(query.least));
    request.set_join_frames(true);
    if (options_.asker != Asker::kEngine) request.set_origin(static_cast<v1::CallOrigin>(options_.asker));
    request.set_looked_up(query.looked_up);
    if (query.codec != nullptr) request.set_codec_wish(std::string(query.codec->name()));
    if (query.heads != HeadRange()) {
      request.mutable_heads()->set_begin(query.heads.begin);
      request.mutable_heads()->set_end(query.heads.end == HeadRange().end ? 0 : query.heads.end);
    }
    request.set_order(query.layer_major ? v1::FetchRequest::ORDER_LAYER_MAJOR : v1::FetchRequest::ORDER_CHUNK_MAJOR);

    FetchReceiver receiver(first, batch.size(), query.layers, sink);
    const absl::Status ended = ByEither(
        /*may_bulk=*/true, [&] { return bulk_.Fetch(request, deadline, query.cancel, receiver); },
        [&] { return FetchByGrpc(request, deadline, query.cancel, receiver); });
    // After a breach nothing that the node said can be trusted.
    if (ended.ok() || absl::IsDataLoss(ended)) receiver.Close(ended);
    return ended;
  }

  absl::Status FetchByGrpc(const v1::FetchRequest& request, absl::Time deadline, Cancellation* cancel,
                           FetchReceiver& receiver) {
    KDN_RETURN_IF_ERROR(Prepare(deadline));
    RawCall call(raw_stub_, fetch_method_, deadline);
    const Cancellation::Link link(cancel, [&call] { call.Cancel(); });
    grpc::ByteBuffer message;
    absl::Status breach;
    bool reading = call.WriteLast(wire::EncodeMessage(request));
    while (reading && breach.ok() && call.Read(&message)) breach = receiver.OnFrame(message);
    if (breach.ok()) return call.Finish();
    call.Cancel();
    return breach;
  }

  absl::StatusOr<v1::LookupResponse> LookupBatch(const v1::LookupRequest& request, absl::Time deadline) {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    absl::StatusOr<v1::LookupResponse> response;
    const absl::Status ended = ByEither(
        /*may_bulk=*/true,
        [&] {
          response = bulk_.Lookup(request, deadline);
          return response.status();
        },
        [&] {
          response.emplace();
          return Unary(&v1::NodeService::Stub::Lookup, request, *response, deadline);
        });
    if (!ended.ok()) return Named(ended);
    return response;
  }

  absl::StatusOr<v1::StoreResponse> StoreBatch(std::span<const BulkChunk> chunks, Ack ack, absl::Time deadline) {
    absl::StatusOr<v1::StoreResponse> response;
    // A node makes the chunks of one gRPC call durable together.
    const bool may_bulk = ack != Ack::kDurable;
    const absl::Status ended = ByEither(
        may_bulk,
        [&] {
          response = bulk_.Store(chunks, deadline);
          return response.status();
        },
        [&] {
          response.emplace();
          return StoreByGrpc(chunks, deadline, *response);
        });
    if (!ended.ok()) return ended;
    return response;
  }

  // Makes a call by the bulk protocol where the node speaks it, else by gRPC, unless the node asked for a pause.
  template <typename Bulk, typename Grpc>
  absl::Status ByEither(bool may_bulk, Bulk&& by_bulk, Grpc&& by_grpc) {
    KDN_RETURN_IF_ERROR(pause_.Check());
    may_bulk = may_bulk && options_.bulk && bulk_.MaySpeak();
    absl::Status ended = may_bulk ? by_bulk() : by_grpc();
    if (may_bulk && absl::IsUnimplemented(ended)) ended = by_grpc();
    pause_.Note(ended);
    return ended;
  }

  static v1::StoreBegin BeginOf(const Chunk& chunk, std::string manifest, Ack ack) {
    v1::StoreBegin begin;
    begin.set_manifest(std::move(manifest));
    begin.set_ack(static_cast<v1::Ack>(ack));
    begin.set_lossy_allowed(chunk.retention.lossy_allowed);
    if (chunk.retention.expires != absl::InfiniteFuture()) {
      // 0 would be for ever.
      const int64_t ttl_ms = absl::ToInt64Milliseconds(chunk.retention.expires - absl::Now());
      begin.set_ttl_ms(static_cast<uint64_t>(std::max<int64_t>(ttl_ms, 1)));
    }
    return begin;
  }

  absl::Status StoreByGrpc(std::span<const BulkChunk> chunks, absl::Time deadline, v1::StoreResponse& response) {
    KDN_RETURN_IF_ERROR(Prepare(deadline));
    RawCall call(raw_stub_, store_method_, deadline);
    const bool all_sent =
        std::all_of(chunks.begin(), chunks.end(), [&](const BulkChunk& chunk) { return SendChunk(call, chunk); });
    if (all_sent) call.WritesDone();
    return ReceiveLast(call, response);
  }

  // False when the call is over.
  static bool SendChunk(RawCall& call, const BulkChunk& chunk) {
    v1::StoreFrame begin;
    *begin.mutable_begin() = chunk.begin;
    if (!call.Write(wire::EncodeMessage(begin))) return false;
    for (uint32_t slab = 0; slab < chunk.chunk->slabs.size(); ++slab) {
      const SharedBuffer& bytes = chunk.chunk->slabs[slab];
      for (size_t offset = 0; offset < bytes.size(); offset += wire::kDefaultFrameBytes) {
        const size_t size = std::min<size_t>(wire::kDefaultFrameBytes, bytes.size() - offset);
        const wire::Payload payload = {.owner = bytes.owner(), .bytes = bytes.span().subspan(offset, size)};
        if (!call.Write(wire::EncodeStoreData({.slab = slab, .offset = offset}, payload))) return false;
      }
    }
    return true;
  }

  // The response that ends a client stream, also when the node has ended the call early.
  static absl::Status ReceiveLast(RawCall& call, v1::StoreResponse& response) {
    grpc::ByteBuffer message;
    const bool answered = call.Read(&message);
    KDN_RETURN_IF_ERROR(call.Finish());
    if (!answered) return DataLoss("it ended the call without an answer");
    if (const absl::Status decoded = wire::DecodeMessage(message, &response); !decoded.ok()) {
      return DataLoss("{}", MessageOf(decoded));
    }
    return absl::OkStatus();
  }

  const std::string target_;
  const RemoteOptions options_;
  NodeChannel channel_;
  v1::NodeService::Stub stub_;
  grpc::GenericStub raw_stub_;
  BulkCalls bulk_;
  OverloadPause pause_;
  const std::string fetch_method_ = fmt::format("/{}/Fetch", v1::NodeService::service_full_name());
  const std::string store_method_ = fmt::format("/{}/Store", v1::NodeService::service_full_name());
};

// What a target that is not valid gives: the same clear error from every call.
class RefusingTransport final : public Transport {
 public:
  explicit RefusingTransport(absl::Status why) : why_(std::move(why)) {}

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId&, std::span<const ChunkKey>, Fidelity,
                                                 absl::Time) override {
    return why_;
  }
  absl::Status Fetch(const FetchQuery&, absl::Time, SlabSink&) override { return why_; }
  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk>, Ack, absl::Time) override { return why_; }
  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId&, std::span<const ChunkKey>, absl::Time) override {
    return why_;
  }
  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId&, std::span<const ChunkKey>, absl::Time) override {
    return why_;
  }
  absl::StatusOr<Lease> Pin(const SpaceId&, std::span<const ChunkKey>, absl::Duration, absl::Time) override {
    return why_;
  }
  absl::Status Unpin(uint64_t, absl::Time) override { return why_; }
  absl::StatusOr<StoreStats> Stats(absl::Time) override { return why_; }

 private:
  const absl::Status why_;
};

}  // namespace

std::shared_ptr<Transport> MakeRemoteTransport(const std::string& target, const RemoteOptions& options) {
  if (absl::Status valid = ValidateTarget(target); !valid.ok()) {
    return std::make_shared<RefusingTransport>(std::move(valid));
  }
  return std::make_shared<RemoteTransport>(target, options);
}

}  // namespace kdn
