#include "kdn-client/async/hedged_transport.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "kdn-client/async/fetch_delivery.h"
#include "kdn-client/async/first_answer.h"
#include "kdn-client/async/race.h"
#include "kdn-client/async/task_threads.h"
#include "kdn-client/call_rules.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// A part of a fetch as one replica is asked for it. Attempts share it.
struct FetchPart {
  SpaceId space;
  std::vector<size_t> chunks;  // of the whole fetch
  std::vector<ChunkKey> keys;
  LayerRange layers;
  Fidelity least;
  bool layer_major;
  const Codec* codec;
  HeadRange heads;
  absl::Time deadline;
  std::shared_ptr<FetchDelivery> delivery;
};

// What one replica sends: dropped, unless it is the one that is heard.
// It offers no Room: what a transport writes there by itself, after it has lost, could not be stopped.
class AttemptSink final : public SlabSink {
 public:
  AttemptSink(Race& race, Race::Attempt& attempt, const FetchPart& part)
      : race_(race), attempt_(attempt), part_(part) {}

  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    if (!IsHeard(chunk)) return false;
    return part_.delivery->OnChunk(part_.chunks[chunk], manifest, tier);
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan bytes) override {
    if (IsHeard(chunk)) part_.delivery->OnPart(part_.chunks[chunk], slab, offset, bytes);
  }
  void OnMiss(size_t chunk, const Miss& miss) override {
    if (IsHeard(chunk)) part_.delivery->OnMiss(part_.chunks[chunk], miss);
  }

 private:
  bool IsHeard(size_t chunk) {
    if (chunk >= part_.chunks.size()) return false;
    if (!heard_ && !lost_) {
      heard_ = race_.Claim(attempt_);
      lost_ = !heard_;
    }
    return heard_;
  }

  Race& race_;
  Race::Attempt& attempt_;
  const FetchPart& part_;
  bool heard_ = false;
  bool lost_ = false;
};

class HedgedTransportImpl final : public HedgedTransport {
 public:
  HedgedTransportImpl(std::vector<std::shared_ptr<Transport>> replicas, const HedgeOptions& options)
      : replicas_(std::move(replicas)),
        options_(options),
        budget_(options.budget, options.burst),
        rests_until_nanos_(replicas_.size()) {}

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    BeginCall();
    struct State {
      std::vector<ChunkKey> keys;
      std::vector<FoundChunk> found;  // the winner's
    };
    const auto state = std::make_shared<State>(State{.keys = {keys.begin(), keys.end()}, .found = {}});
    const auto race = std::make_shared<Race>(threads_, deadline);
    const Race::Ask ask = [this, state, race = std::weak_ptr<Race>(race), space, least,
                           deadline](Race::Attempt& attempt) -> absl::Status {
      KDN_ASSIGN_OR_RETURN(std::vector<FoundChunk> found,
                           replicas_[attempt.replica]->Lookup(space, state->keys, least, deadline));
      // Run returns only once this has returned, if it won.
      if (race.lock()->Claim(attempt)) state->found = std::move(found);
      return absl::OkStatus();
    };
    const absl::Status status = Count(race->Run(Order(), ask, RulesFor(lookups_)), lookups_).status;
    if (!status.ok()) return status;
    return std::move(state->found);
  }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    BeginCall();
    const auto delivery = std::make_shared<FetchDelivery>(query.keys.size(), query.layers, sink);
    absl::Status status = FetchAll(query, deadline, delivery);
    delivery->Close();
    return status;
  }

  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    // OK where one held the chunk and all went well; what failed stands.
    std::vector<absl::Status> deleted(keys.size(), NotFound("no replica holds the chunk"));
    absl::Status failed;
    for (const std::shared_ptr<Transport>& replica : replicas_) {
      const absl::StatusOr<std::vector<absl::Status>> here = replica->Delete(space, keys, deadline);
      if (!here.ok()) failed = here.status();
      for (size_t i = 0; here.ok() && i < keys.size(); ++i) {
        const absl::Status& status = (*here)[i];
        if (absl::IsNotFound(deleted[i]) || (deleted[i].ok() && !absl::IsNotFound(status))) deleted[i] = status;
      }
    }
    if (!failed.ok()) return failed;
    return deleted;
  }

  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    return replicas_.front()->Store(chunks, ack, deadline);
  }
  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    return replicas_.front()->Prefetch(space, keys, deadline);
  }
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    return replicas_.front()->Pin(space, keys, duration, deadline);
  }
  absl::Status Unpin(uint64_t lease, absl::Time deadline) override { return replicas_.front()->Unpin(lease, deadline); }
  absl::StatusOr<StoreStats> Stats(absl::Time deadline) override { return replicas_.front()->Stats(deadline); }

  HedgeCounts Counts() const override {
    return {.calls = calls_.load(),
            .hedged = hedged_.load(),
            .hedge_won = hedge_won_.load(),
            .failed_over = failed_over_.load()};
  }

 private:
  // Asks until everything has come, or nobody is left to ask.
  absl::Status FetchAll(const FetchQuery& query, absl::Time deadline, const std::shared_ptr<FetchDelivery>& delivery) {
    std::vector<size_t> replicas = Order();
    absl::Status status;
    for (bool first = true;; first = false) {
      const FetchDelivery::Rest wanted = delivery->Wanted();
      if (wanted.chunks.empty()) return absl::OkStatus();
      if (replicas.empty()) return status;
      if (!first && !status.ok()) failed_over_.fetch_add(1);
      const Race::Outcome outcome = FetchSome(query, wanted, deadline, delivery, replicas);
      status = outcome.status;
      const std::vector<size_t> left = delivery->Wanted().chunks;
      if (left.empty()) return absl::OkStatus();
      if (absl::IsInvalidArgument(status) || RealNow() >= deadline) return status;
      if (query.cancel != nullptr && query.cancel->cancelled()) return Cancelled("the fetch was cancelled");
      if (status.ok() && left == wanted.chunks) {
        return Internal("a replica ended the fetch without an answer for {} of its chunks", wanted.chunks.size());
      }
      std::erase_if(replicas, [&](size_t replica) { return std::ranges::count(outcome.failed, replica) > 0; });
    }
  }

  Race::Outcome FetchSome(const FetchQuery& query, const FetchDelivery::Rest& wanted, absl::Time deadline,
                          const std::shared_ptr<FetchDelivery>& delivery, const std::vector<size_t>& replicas) {
    auto part = std::make_shared<FetchPart>(FetchPart{.space = query.space,
                                                      .chunks = wanted.chunks,
                                                      .keys = {},
                                                      .layers = wanted.layers,
                                                      .least = query.least,
                                                      .layer_major = query.layer_major,
                                                      .codec = query.codec,
                                                      .heads = query.heads,
                                                      .deadline = deadline,
                                                      .delivery = delivery});
    part->keys.reserve(wanted.chunks.size());
    for (const size_t chunk : wanted.chunks) part->keys.push_back(query.keys[chunk]);
    const auto race = std::make_shared<Race>(threads_, deadline);
    const Race::Ask ask = [this, part, race = std::weak_ptr<Race>(race)](Race::Attempt& attempt) {
      const std::shared_ptr<Race> held = race.lock();
      AttemptSink sink(*held, attempt, *part);
      return replicas_[attempt.replica]->Fetch({.space = part->space,
                                                .keys = part->keys,
                                                .layers = part->layers,
                                                .least = part->least,
                                                .layer_major = part->layer_major,
                                                .cancel = &attempt.cancel,
                                                .codec = part->codec,
                                                .heads = part->heads},
                                               part->deadline, sink);
    };
    const Cancellation::Link link(query.cancel, [race] { race->Stop(); });
    return Count(race->Run(replicas, ask, RulesFor(fetches_)), fetches_);
  }

  void BeginCall() {
    calls_.fetch_add(1);
    budget_.Earn();
  }

  // Replicas in the order in which they are asked.
  std::vector<size_t> Order() const {
    std::vector<size_t> order(replicas_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const int64_t now = absl::ToUnixNanos(RealNow());
    std::stable_partition(order.begin(), order.end(),
                          [&](size_t replica) { return rests_until_nanos_[replica].load() <= now; });
    return order;
  }

  Race::Rules RulesFor(const FirstAnswers& recent) {
    return {.delay = options_.delay.value_or(recent.Delay(options_.min_delay, options_.max_delay)),
            .may_hedge = [this] { return threads_.running() < options_.max_running && budget_.Spend(); }};
  }

  Race::Outcome Count(Race::Outcome outcome, FirstAnswers& recent) {
    hedged_.fetch_add(outcome.hedged);
    failed_over_.fetch_add(outcome.failed_over);
    if (outcome.hedge_won) hedge_won_.fetch_add(1);
    if (outcome.won) recent.Add(outcome.first_answer);
    for (const size_t replica : outcome.failed) {
      rests_until_nanos_[replica].store(absl::ToUnixNanos(RealNow() + options_.rest));
    }
    return outcome;
  }

  const std::vector<std::shared_ptr<Transport>> replicas_;
  const HedgeOptions options_;
  FirstAnswers lookups_;
  FirstAnswers fetches_;
  TokenBucket budget_;
  std::vector<std::atomic<int64_t>> rests_until_nanos_;  // by replica; Unix time
  std::atomic<uint64_t> calls_{0};
  std::atomic<uint64_t> hedged_{0};
  std::atomic<uint64_t> hedge_won_{0};
  std::atomic<uint64_t> failed_over_{0};
  TaskThreads threads_;  // last: what runs there uses what is above
};

}  // namespace

absl::StatusOr<std::shared_ptr<HedgedTransport>> MakeHedgedTransport(std::vector<std::shared_ptr<Transport>> replicas,
                                                                     const HedgeOptions& options) {
  if (replicas.empty()) return InvalidArgument("there are no replicas; give one at least");
  for (size_t i = 0; i < replicas.size(); ++i) {
    if (replicas[i] == nullptr) return InvalidArgument("replica {} is null", i);
  }
  return std::make_shared<HedgedTransportImpl>(std::move(replicas), options);
}

}  // namespace kdn
