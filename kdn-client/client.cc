#include "kdn-client/client.h"

#include <time.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "kdn-client/call_rules.h"
#include "kdn-client/chunk_encoder.h"
#include "kdn-client/fetch_sink.h"
#include "kdn-client/kv_view.h"
#include "kdn-client/processor_time.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

// Encoded bytes that a Store holds at a time, as long as one chunk is not larger.
constexpr uint64_t kStoreBatchBytes = uint64_t{64} << 20;

std::vector<ChunkKey> KeysOf(std::span<const ChunkRef> chunks) {
  std::vector<ChunkKey> keys;
  keys.reserve(chunks.size());
  for (const ChunkRef& chunk : chunks) keys.push_back(chunk.key);
  return keys;
}

absl::Status OutOfTime(absl::Duration deadline) {
  return DeadlineExceeded("no time was given: the deadline is {} ms", absl::ToDoubleMilliseconds(deadline));
}

// Encodes chunks and sends them in batches, so that memory stays bounded however many there are.
class Upload {
 public:
  Upload(Transport& transport, Ack ack, absl::Time deadline, StoreReport& report)
      : transport_(transport), ack_(ack), deadline_(deadline), report_(report) {}

  // Whether going on makes sense: the node answers and there is time left.
  const absl::Status& health() const { return health_; }

  void Add(size_t index, Chunk chunk) {
    batch_bytes_ += chunk.manifest->EncodedBytes();
    indices_.push_back(index);
    batch_.push_back(std::move(chunk));
    if (batch_bytes_ >= kStoreBatchBytes || batch_.size() == kMaxChunksPerCall) Send();
  }

  void Send() {
    if (batch_.empty()) return;
    const absl::StatusOr<std::vector<absl::Status>> sent = transport_.Store(batch_, ack_, deadline_);
    health_ = sent.status();
    for (size_t i = 0; i < batch_.size(); ++i) {
      absl::Status& outcome = report_.chunks[indices_[i]];
      outcome = sent.ok() ? (*sent)[i] : sent.status();
      if (!outcome.ok()) continue;
      report_.encoded_bytes += batch_[i].manifest->EncodedBytes();
      report_.raw_bytes += batch_[i].manifest->RawBytes();
    }
    batch_.clear();
    indices_.clear();
    batch_bytes_ = 0;
  }

 private:
  Transport& transport_;
  const Ack ack_;
  const absl::Time deadline_;
  StoreReport& report_;
  absl::Status health_;
  std::vector<Chunk> batch_;
  std::vector<size_t> indices_;  // of batch_ in the report
  uint64_t batch_bytes_ = 0;
};

class ClientImpl final : public Client {
 public:
  ClientImpl(const SpaceId& id, KvSpace space, std::shared_ptr<Transport> transport)
      : id_(id), space_(std::move(space)), transport_(std::move(transport)) {}

  const SpaceId& space_id() const override { return id_; }
  const KvSpace& space() const override { return space_; }

  PrefixHit LookupPrefix(std::span<const Token> tokens, const LookupOptions& options) override {
    PrefixHit hit;
    absl::StatusOr<std::vector<ChunkRef>> chain = ChunkChain(id_, space_.chunk_tokens, tokens, /*whole_only=*/true);
    if (!chain.ok()) {
      hit.stopped_by = {MissReason::kInternal, MessageOf(chain.status())};
      return hit;
    }
    hit.chunks = *std::move(chain);
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    hit.trace = CurrentTrace();
    const std::vector<FoundChunk> found = Find(hit.chunks, options);
    const auto first_miss = std::find_if(found.begin(), found.end(),
                                         [](const FoundChunk& c) { return c.miss.reason != MissReason::kNone; });
    hit.hits = static_cast<size_t>(first_miss - found.begin());
    if (first_miss != found.end()) hit.stopped_by = first_miss->miss;
    std::transform(found.begin(), first_miss, std::back_inserter(hit.tiers),
                   [](const FoundChunk& c) { return c.tier; });
    return hit;
  }

  std::vector<FoundChunk> Lookup(std::span<const ChunkRef> chunks, const LookupOptions& options) override {
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    return Find(chunks, options);
  }

  absl::StatusOr<FetchReport> Fetch(std::span<const ChunkRef> chunks, const KvLayout& destination,
                                    const FetchOptions& options) override {
    const absl::Time begin = RealNow();
    KDN_ASSIGN_OR_RETURN(const KvView view, KvView::Over(space_, destination, options.layers, options.tokens));
    std::vector<ChunkPlace> places = options.places;
    if (places.empty()) {
      for (const ChunkRef& chunk : chunks) {
        places.push_back({.at = int64_t{chunk.first_token} + options.destination_token});
      }
    }
    KDN_RETURN_IF_ERROR(view.CheckChunks(chunks, places));
    const Codec* codec = nullptr;
    if (!options.codec.empty()) {
      KDN_ASSIGN_OR_RETURN(codec, FindCodec(options.codec));
    }
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    const absl::Duration worked_before = ThreadProcessorTime();

    FetchSink sink(id_, space_, chunks, view,
                   {.layers = options.layers, .least = options.least, .places = places, .on_layer = options.on_layer});
    const std::vector<ChunkKey> keys = KeysOf(chunks);
    absl::Status ended;
    if (options.deadline <= absl::ZeroDuration()) {
      ended = OutOfTime(options.deadline);
    } else if (!keys.empty()) {
      const FetchQuery query = {.space = id_,
                                .keys = keys,
                                .layers = options.layers,
                                .least = options.least,
                                .layer_major = options.layer_major,
                                .cancel = options.cancel,
                                .codec = codec,
                                .heads = view.heads()};
      ended = transport_->Fetch(query, begin + options.deadline, sink);
    }

    FetchReport report;
    report.trace = CurrentTrace();
    report.chunks = std::move(sink).Finish(ended, &report.work);
    const auto first_miss = std::find_if(report.chunks.begin(), report.chunks.end(),
                                         [](const ChunkOutcome& c) { return c.miss.reason != MissReason::kNone; });
    report.ready = static_cast<size_t>(first_miss - report.chunks.begin());
    for (const ChunkOutcome& chunk : report.chunks) {
      if (chunk.miss.reason != MissReason::kNone) continue;
      report.encoded_bytes += chunk.encoded_bytes;
      report.raw_bytes += chunk.raw_bytes;
    }
    report.elapsed = RealNow() - begin;
    report.work += ThreadProcessorTime() - worked_before;
    return report;
  }

  absl::StatusOr<StoreReport> Store(std::span<const ChunkRef> chunks, const KvLayout& source,
                                    const StoreOptions& options) override {
    const absl::Time begin = RealNow();
    const absl::Time deadline = begin + options.deadline;
    KDN_ASSIGN_OR_RETURN(const KvView view, KvView::Over(space_, source, {}));
    KDN_RETURN_IF_ERROR(view.CheckHoldsAllHeads());
    KDN_RETURN_IF_ERROR(view.CheckChunks(chunks));
    KDN_ASSIGN_OR_RETURN(const Codec* codec, FindCodec(options.codec));
    if (options.ttl <= absl::ZeroDuration()) return InvalidArgument("store for a positive time");
    const Retention retention = {.expires = begin + options.ttl, .lossy_allowed = options.lossy_allowed};

    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    StoreReport report;
    report.trace = CurrentTrace();
    report.chunks.resize(chunks.size());
    Upload upload(*transport_, options.ack, deadline, report);
    for (size_t i = 0; i < chunks.size(); ++i) {
      report.chunks[i] =
          RealNow() < deadline ? upload.health() : DeadlineExceeded("no time was left to send the chunk");
      if (!report.chunks[i].ok()) continue;
      absl::StatusOr<Chunk> encoded = EncodeChunk(id_, space_, chunks[i], view, *codec);
      report.chunks[i] = encoded.status();
      if (!encoded.ok()) continue;
      encoded->retention = retention;
      upload.Add(i, *std::move(encoded));
    }
    upload.Send();
    report.elapsed = RealNow() - begin;
    return report;
  }

  absl::StatusOr<PrefetchCounts> Prefetch(std::span<const ChunkRef> chunks, absl::Duration deadline) override {
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    return transport_->Prefetch(id_, KeysOf(chunks), RealNow() + deadline);
  }

  absl::StatusOr<std::vector<absl::Status>> Delete(std::span<const ChunkKey> keys, absl::Duration deadline) override {
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    return transport_->Delete(id_, keys, RealNow() + deadline);
  }

  absl::StatusOr<Lease> Pin(std::span<const ChunkKey> keys, absl::Duration duration, absl::Duration deadline) override {
    if (duration <= absl::ZeroDuration()) return InvalidArgument("pin for a positive time");
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    return transport_->Pin(id_, keys, duration, RealNow() + deadline);
  }

  absl::Status Unpin(uint64_t lease, absl::Duration deadline) override {
    const ScopedTrace span(ChildOfCurrentOrNewTrace());
    return transport_->Unpin(lease, RealNow() + deadline);
  }

 private:
  std::vector<FoundChunk> Find(std::span<const ChunkRef> chunks, const LookupOptions& options) {
    if (chunks.empty()) return {};
    absl::StatusOr<std::vector<FoundChunk>> found = OutOfTime(options.deadline);
    if (options.deadline > absl::ZeroDuration()) {
      found = transport_->Lookup(id_, KeysOf(chunks), options.least, RealNow() + options.deadline);
    }
    if (found.ok()) return *std::move(found);
    FoundChunk unknown;
    unknown.miss = MissFromCall(found.status());
    return std::vector<FoundChunk>(chunks.size(), unknown);
  }

  const SpaceId id_;
  const KvSpace space_;
  const std::shared_ptr<Transport> transport_;
};

}  // namespace

size_t StoreReport::Stored() const {
  return static_cast<size_t>(std::count_if(chunks.begin(), chunks.end(), [](const absl::Status& s) { return s.ok(); }));
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(KvSpace space, std::shared_ptr<Transport> transport) {
  if (transport == nullptr) return InvalidArgument("the transport is null; make one with MakeRemoteTransport");
  KDN_RETURN_IF_ERROR(ValidateSpace(space));
  KDN_ASSIGN_OR_RETURN(const SpaceId id, ComputeSpaceId(space));
  return std::make_unique<ClientImpl>(id, std::move(space), std::move(transport));
}

}  // namespace kdn
