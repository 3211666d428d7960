#include "kdn-client/loading/loading_controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

using std::chrono::steady_clock;

// The whole chunks of the prompt before its last token.
std::vector<RaceChunk> ChunksOf(const KvSpace& space, size_t prompt_tokens) {
  std::vector<RaceChunk> chunks;
  const size_t count = prompt_tokens == 0 ? 0 : (prompt_tokens - 1) / space.chunk_tokens;
  uint64_t raw_bytes = 0;
  for (const SlabInfo& slab : SlabsOf(space, space.chunk_tokens)) raw_bytes += slab.shape.RawSize();
  chunks.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    chunks.push_back({.first_token = static_cast<uint32_t>(i * space.chunk_tokens),
                      .tokens = space.chunk_tokens,
                      .raw_bytes = raw_bytes});
  }
  return chunks;
}

// Whether the node's answer, rather than its absence, was why a lookup stopped.
bool Answered(MissReason reason) {
  return reason == MissReason::kNone || reason == MissReason::kNotFound || reason == MissReason::kWrongSpace ||
         reason == MissReason::kFidelity;
}

}  // namespace

std::unique_ptr<PrefixLoad> LoadingController::Start(Client& client, std::span<const Token> prompt,
                                                     KvLayout destination, const PrefixLoadOptions& options) {
  return std::unique_ptr<PrefixLoad>(new PrefixLoad(*this, client, prompt, std::move(destination), options));
}

void LoadingController::ObservePrefill(uint32_t first_token, uint32_t tokens, absl::Duration elapsed) {
  MutexLock lock(mu_);
  models_.prefill.Observe(first_token, tokens, elapsed);
}

std::optional<absl::Duration> LoadingController::PrefillTime(uint32_t first_token, uint32_t tokens) const {
  MutexLock lock(mu_);
  return models_.prefill.Predict(first_token, tokens);
}

std::optional<double> LoadingController::DeliveryRate() const {
  MutexLock lock(mu_);
  const std::optional<double> wire = models_.link.Bandwidth(TierKind::kNone);
  if (!wire.has_value()) return std::nullopt;
  return 1 / models_.codecs.SecondsPerByte(CodecWish::kStored, *wire);
}

PrefixLoad::PrefixLoad(LoadingController& controller, Client& client, std::span<const Token> prompt,
                       KvLayout destination, const PrefixLoadOptions& options)
    : controller_(controller),
      client_(client),
      prompt_(prompt),
      destination_(std::move(destination)),
      options_(options),
      started_(RealNow()) {
  std::vector<RaceChunk> chunks = ChunksOf(client.space(), prompt.size());
  {
    MutexLock lock(controller_.mu_);
    const auto tokens = static_cast<uint32_t>(chunks.size() * client.space().chunk_tokens);
    const absl::Duration all = controller_.models_.prefill.Predict(0, tokens).value_or(absl::ZeroDuration());
    race_.emplace(
        std::move(chunks), controller_.models_,
        LoadRaceOptions{.patience = all * controller_.patience_, .least = options_.least, .aim = options_.aim});
  }
  // Its lookup and all its fetches are one request.
  thread_ = std::thread([this, trace = CurrentOrNewTrace()] {
    const ScopedTrace scope(trace);
    Run();
  });
}

PrefixLoad::~PrefixLoad() { Stop(); }

void PrefixLoad::Stop() {
  {
    MutexLock lock(controller_.mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

PrefixLoad::Step PrefixLoad::Next() {
  MutexLock lock(controller_.mu_);
  const uint32_t chunk_tokens = client_.space().chunk_tokens;
  while (true) {
    const absl::Time now = RealNow();
    const LoadRace::Move move = race_->EngineMove(now);
    const auto begin = static_cast<uint32_t>(move.chunk * chunk_tokens);
    switch (move.kind) {
      case LoadRace::Move::Kind::kDone:
        return {.done = true, .begin = begin};
      case LoadRace::Move::Kind::kCompute:
        computing_ = move.chunk;
        computing_since_ = steady_clock::now();
        changed_.NotifyAll();
        return {.begin = begin, .end = begin + chunk_tokens};
      case LoadRace::Move::Kind::kWait:
        changed_.WaitUntil(controller_.mu_, steady_clock::now() + absl::ToChronoNanoseconds(move.until - now));
    }
  }
}

void PrefixLoad::Computed() {
  {
    MutexLock lock(controller_.mu_);
    race_->Computed(computing_, absl::FromChrono(steady_clock::now() - computing_since_));
  }
  changed_.NotifyAll();
}

void PrefixLoad::Run() {
  PrefixHit hit = client_.LookupPrefix(prompt_, {.deadline = options_.deadline, .least = options_.least});
  const absl::Time found = RealNow();
  MutexLock lock(controller_.mu_);
  report_.lookup = found - started_;
  report_.hit = std::move(hit);
  const Miss& stopped_by = report_.hit.stopped_by;
  if (stopped_by.reason != MissReason::kNone) report_.misses.push_back(stopped_by);
  if (Answered(stopped_by.reason)) controller_.models_.link.ObserveCall(report_.lookup);
  race_->Found(report_.hit.hits, report_.hit.tiers);
  changed_.NotifyAll();
  while (!stopping_ && !race_->loading_over()) {
    const std::optional<LoadRace::Batch> batch = race_->NextBatch(RealNow());
    if (!batch.has_value()) {
      if (!race_->loading_over()) changed_.Wait(controller_.mu_);
      continue;
    }
    LoadBatch(*batch);
    changed_.NotifyAll();
  }
}

void PrefixLoad::LoadBatch(const LoadRace::Batch& batch) {
  // Last chunks first: what comes in time then joins what is in place already.
  std::vector<ChunkRef> chunks(report_.hit.chunks.begin() + static_cast<ptrdiff_t>(batch.begin),
                               report_.hit.chunks.begin() + static_cast<ptrdiff_t>(batch.end));
  std::reverse(chunks.begin(), chunks.end());
  const absl::Time deadline = std::min(batch.deadline, started_ + options_.deadline);

  controller_.mu_.Unlock();
  const absl::StatusOr<FetchReport> fetched = client_.Fetch(
      chunks, destination_,
      {.deadline = deadline - RealNow(), .least = options_.least, .codec = std::string(CodecNameOf(batch.codec))});
  controller_.mu_.Lock();

  if (!fetched.ok()) {
    report_.status = fetched.status();
    stopping_ = true;
    race_->Loaded(batch, {}, RealNow());
    return;
  }
  LoadRace::Arrival arrival = {.ready = fetched->ready, .encoded_bytes = 0, .work = fetched->work};
  for (size_t i = 0; i < fetched->ready; ++i) arrival.encoded_bytes += fetched->chunks[i].encoded_bytes;
  race_->Loaded(batch, arrival, RealNow());
  report_.encoded_bytes += fetched->encoded_bytes;
  report_.raw_bytes += fetched->raw_bytes;
  for (size_t i = 0; i < fetched->chunks.size(); ++i) {
    const ChunkOutcome& outcome = fetched->chunks[i];
    if (i < fetched->ready) report_.tiers.push_back(outcome.tier);
    if (outcome.miss.reason != MissReason::kNone) report_.misses.push_back(outcome.miss);
  }
}

PrefixLoadReport PrefixLoad::Finish() {
  Stop();
  MutexLock lock(controller_.mu_);
  report_.loaded = race_->counts().loaded;
  report_.computed = race_->counts().computed;
  report_.waited = race_->counts().waited;
  report_.codec = CodecNameOf(race_->codec());
  report_.why = race_->Why();
  return std::move(report_);
}

}  // namespace kdn
