#include "kdn-client/blend/segment_source.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

// A chunk is fetched whole: where less than one token in so many is of use, it is not worth it.
constexpr uint32_t kWorthFetching = 4;

// A chunk of a segment, where in the prompt it goes, and which of its tokens are of the segment.
struct PlacedChunk {
  ChunkRef chunk;
  ChunkPlace place;
  uint32_t segment = 0;

  uint32_t Tokens() const { return place.take.end - place.take.begin; }
};

// Its KV was computed after nothing, and nothing stands before it.
bool AtFront(const PromptSegment& segment) { return segment.begin == 0 && segment.source == 0; }

// That the segment's tokens in the prompt are those of what is stored.
absl::Status CheckPiece(const PromptSegment& segment, std::span<const Token> tokens, size_t number) {
  if (segment.stored.empty()) {
    if (segment.source == 0) return absl::OkStatus();
    return InvalidArgument("segment {}: source is {}, but not what it is a piece of; give `stored`", number,
                           segment.source);
  }
  if (segment.stored.size() < uint64_t{segment.source} + segment.tokens) {
    return InvalidArgument("segment {}: it is tokens [{}, {}) of a sequence that has {}", number, segment.source,
                           uint64_t{segment.source} + segment.tokens, segment.stored.size());
  }
  const std::span<const Token> piece = segment.stored.subspan(segment.source, segment.tokens);
  const auto [stored, here] = std::ranges::mismatch(piece, tokens.subspan(segment.begin, segment.tokens));
  if (stored == piece.end()) return absl::OkStatus();
  return InvalidArgument("segment {}: token {} of the prompt is {}, but {} in the sequence that it is a piece of",
                         number, segment.begin + (stored - piece.begin()), *here, *stored);
}

absl::Status CheckSegments(std::span<const PromptSegment> segments, std::span<const Token> tokens) {
  uint64_t end = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    const uint64_t segment_end = uint64_t{segments[i].begin} + segments[i].tokens;
    if (segments[i].tokens == 0) return InvalidArgument("segment {}: it has no tokens; leave it out", i);
    if (segments[i].begin < end) {
      return InvalidArgument("segment {}: tokens [{}, {}) overlap the segment before it, which ends at {}", i,
                             segments[i].begin, segment_end, end);
    }
    if (segment_end > tokens.size()) {
      return InvalidArgument("segment {}: tokens [{}, {}) end beyond the prompt of {}", i, segments[i].begin,
                             segment_end, tokens.size());
    }
    KDN_RETURN_IF_ERROR(CheckPiece(segments[i], tokens, i));
    end = segment_end;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PlacedChunk>> ChunksOf(const Client& client, std::span<const Token> tokens,
                                                  std::span<const PromptSegment> segments) {
  std::vector<PlacedChunk> chunks;
  for (uint32_t i = 0; i < segments.size(); ++i) {
    const PromptSegment& segment = segments[i];
    const std::span<const Token> stored =
        segment.stored.empty() ? tokens.subspan(segment.begin, segment.tokens) : segment.stored;
    KDN_ASSIGN_OR_RETURN(const std::vector<ChunkRef> chain,
                         ChunkChain(client.space_id(), client.space().chunk_tokens, stored));
    const uint32_t end = segment.source + segment.tokens;
    for (const ChunkRef& chunk : chain) {
      const uint32_t chunk_end = chunk.first_token + chunk.tokens;
      if (chunk_end <= segment.source || chunk.first_token >= end) continue;
      const PlacedChunk placed = {
          .chunk = chunk,
          .place = {.at = int64_t{segment.begin} + chunk.first_token - segment.source,
                    .take = {.begin = std::max(chunk.first_token, segment.source) - chunk.first_token,
                             .end = std::min(chunk_end, end) - chunk.first_token}},
          .segment = i};
      if (placed.Tokens() * kWorthFetching >= chunk.tokens) chunks.push_back(placed);
    }
  }
  return chunks;
}

std::vector<ChunkRef> RefsOf(std::span<const PlacedChunk> chunks) {
  std::vector<ChunkRef> refs;
  refs.reserve(chunks.size());
  for (const PlacedChunk& placed : chunks) refs.push_back(placed.chunk);
  return refs;
}

}  // namespace

class SegmentSource::Load {
 public:
  Load(Client& client, KvLayout kv, LayerRange layers, Fidelity least, uint32_t prompt_tokens)
      : client_(client),
        kv_(std::move(kv)),
        layers_(layers),
        least_(least),
        prompt_tokens_(prompt_tokens),
        ready_(LayerCount(client.space()), false) {}

  ~Load() { Stop(); }

  bool empty() const { return chunks_.empty(); }

  void Add(uint32_t run, const PlacedChunk& placed) {
    runs_.push_back(run);
    chunks_.push_back(placed.chunk);
    places_.push_back(placed.place);
  }

  void Start(absl::Time deadline) {
    thread_ = std::thread([this, deadline, trace = CurrentTrace()] {
      const ScopedTrace scope(trace);
      Run(deadline);
    });
  }

  // The fetch's own error, if the memory does not fit.
  absl::Status Await(uint32_t layer, std::vector<uint32_t>& missing) {
    MutexLock lock(mu_);
    if (!layers_.Contains(layer)) return absl::OkStatus();
    while (!done_ && !ready_[layer]) changed_.Wait(mu_);
    if (ready_[layer] || told_) return absl::OkStatus();
    told_ = true;
    KDN_RETURN_IF_ERROR(fetched_.status());
    for (size_t i = 0; i < runs_.size(); ++i) {
      if (fetched_->chunks[i].miss.reason != MissReason::kNone) missing.push_back(runs_[i]);
    }
    return absl::OkStatus();
  }

  void Stop() {
    cancel_.Cancel();
    if (thread_.joinable()) thread_.join();
  }

  void AddTo(SegmentReport& report) {
    Stop();
    MutexLock lock(mu_);
    if (!fetched_.ok()) return;
    for (const ChunkOutcome& chunk : fetched_->chunks) {
      if (chunk.miss.reason == MissReason::kNone) {
        ++report.used;
        report.tiers.push_back(chunk.tier);
      } else {
        report.misses.push_back(chunk.miss);
      }
    }
    report.encoded_bytes += fetched_->encoded_bytes;
    report.raw_bytes += fetched_->raw_bytes;
    report.load = std::max(report.load, fetched_->elapsed);
  }

 private:
  void Run(absl::Time deadline) {
    absl::StatusOr<FetchReport> fetched =
        client_.Fetch(chunks_, kv_,
                      {.deadline = deadline - RealNow(),
                       .layers = layers_,
                       .least = least_,
                       .places = places_,
                       .tokens = {.begin = 0, .end = prompt_tokens_ - 1},  // the last one is computed
                       .layer_major = true,
                       .on_layer = [this](uint32_t layer) { LayerCame(layer); },
                       .cancel = &cancel_});
    MutexLock lock(mu_);
    fetched_ = std::move(fetched);
    done_ = true;
    changed_.NotifyAll();
  }

  void LayerCame(uint32_t layer) {
    MutexLock lock(mu_);
    ready_[layer] = true;
    changed_.NotifyAll();
  }

  Client& client_;
  const KvLayout kv_;
  const LayerRange layers_;
  const Fidelity least_;
  const uint32_t prompt_tokens_;
  std::vector<uint32_t> runs_;  // of each chunk
  std::vector<ChunkRef> chunks_;
  std::vector<ChunkPlace> places_;
  Cancellation cancel_;

  Mutex mu_;
  CondVar changed_;
  std::vector<bool> ready_ ABSL_GUARDED_BY(mu_);  // by layer: in place for all chunks
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  bool told_ ABSL_GUARDED_BY(mu_) = false;  // what is missing
  absl::StatusOr<FetchReport> fetched_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<SegmentSource>> SegmentSource::Start(Client& client, std::span<const Token> tokens,
                                                                    std::span<const PromptSegment> segments,
                                                                    KvLayout kv, const SegmentOptions& options) {
  const absl::Time begin = RealNow();
  if (tokens.empty()) return InvalidArgument("segments: the prompt has no tokens");
  KDN_RETURN_IF_ERROR(CheckSegments(segments, tokens));
  KDN_ASSIGN_OR_RETURN(const std::vector<PlacedChunk> chunks, ChunksOf(client, tokens, segments));

  std::unique_ptr<SegmentSource> source(new SegmentSource);
  SegmentReport& report = source->report_;
  report.chunks = chunks.size();
  const std::vector<FoundChunk> found =
      client.Lookup(RefsOf(chunks), {.deadline = options.deadline, .least = options.least});
  report.lookup = RealNow() - begin;

  const auto prompt_tokens = static_cast<uint32_t>(tokens.size());
  const uint32_t layers = LayerCount(client.space());
  auto exact = std::make_unique<Load>(client, kv, LayerRange{}, options.least, prompt_tokens);
  auto others = std::make_unique<Load>(client, std::move(kv), LayerRange{.begin = options.first_layer}, options.least,
                                       prompt_tokens);
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (found[i].miss.reason != MissReason::kNone) {
      report.misses.push_back(found[i].miss);
      continue;
    }
    ++report.held;
    const PlacedChunk& placed = chunks[i];
    ReusedRun run = {.begin = static_cast<uint32_t>(placed.place.at + placed.place.take.begin),
                     .tokens = placed.Tokens(),
                     .source = placed.chunk.first_token + placed.place.take.begin,
                     .segment = placed.segment,
                     .exact = AtFront(segments[placed.segment]) && options.least == Fidelity::kExact};
    if (run.begin + run.tokens == prompt_tokens) --run.tokens;
    if (run.tokens == 0 || (!run.exact && options.first_layer >= layers)) continue;
    (run.exact ? exact : others)->Add(static_cast<uint32_t>(source->runs_.size()), placed);
    source->runs_.push_back(run);
    source->tiers_.push_back(found[i].tier);
  }
  for (std::unique_ptr<Load>* load : {&exact, &others}) {
    if ((*load)->empty()) continue;
    (*load)->Start(begin + options.deadline);
    source->loads_.push_back(std::move(*load));
  }
  return source;
}

SegmentSource::~SegmentSource() = default;

absl::Status SegmentSource::Await(uint32_t layer, std::vector<uint32_t>& missing) {
  for (const std::unique_ptr<Load>& load : loads_) KDN_RETURN_IF_ERROR(load->Await(layer, missing));
  return absl::OkStatus();
}

SegmentReport SegmentSource::Finish() {
  for (const std::unique_ptr<Load>& load : loads_) load->AddTo(report_);
  return std::move(report_);
}

}  // namespace kdn
