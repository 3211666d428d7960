#include "kdn-client/loading/load_race.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

namespace kdn {
namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();
// What may be risked for a gain, in parts of the time that the next chunk takes to compute.
constexpr double kStake = 0.25;
// A prediction may be off by so much before the engine stops waiting for it.
constexpr double kTrust = 2;
// A batch is to be there a little before the engine is expected, which may come early.
constexpr double kEarly = 0.8;
// A codec is worth a wish, or a further loss, where it takes less than this of the time.
constexpr double kWorthwhile = 0.9;
// The aim where none is given, in parts of the time that it takes to compute what is held.
constexpr double kAimPart = 0.25;
// A fetch that took so much longer than wire and receiver need was held up by the node.
constexpr double kUnexplained = 1.25;
// Waits are not cut shorter than threads take to wake up.
constexpr double kGrain = 1e-4;

}  // namespace

LoadRace::LoadRace(std::vector<RaceChunk> chunks, LoadModels& models, const LoadRaceOptions& options)
    : chunks_(std::move(chunks)),
      models_(models),
      options_(options),
      tiers_(chunks_.size(), TierKind::kNone),
      back_(chunks_.size()) {
  models_.codecs.Fade();
}

double LoadRace::ComputeSeconds(size_t begin, size_t end) const {
  if (begin >= end) return 0;
  uint32_t tokens = 0;
  for (size_t i = begin; i < end; ++i) tokens += chunks_[i].tokens;
  const std::optional<absl::Duration> expected = models_.prefill.Predict(chunks_[begin].first_token, tokens);
  return expected.has_value() ? absl::ToDoubleSeconds(*expected) : kForever;
}

double LoadRace::LoadSeconds(size_t begin, size_t end, CodecWish codec) const {
  if (begin >= end) return 0;
  if (!KnowsLink()) return kForever;
  double seconds = absl::ToDoubleSeconds(models_.link.Latency().value_or(absl::ZeroDuration()));
  for (size_t i = begin; i < end;) {
    const TierKind tier = tiers_[i];
    double bytes = 0;
    for (; i < end && tiers_[i] == tier; ++i) bytes += static_cast<double>(chunks_[i].raw_bytes);
    seconds += bytes * models_.codecs.SecondsPerByte(codec, *models_.link.Bandwidth(tier));
  }
  return seconds;
}

bool LoadRace::LookupIsNear() const {
  const std::optional<absl::Duration> latency = models_.link.Latency();
  if (latency.has_value() && *latency > LookupPatience()) return false;
  return !KnowsLink() || kTrust * LoadSeconds(0, 1) <= ComputeSeconds(0, 1);
}

CodecWish LoadRace::QuickestOf(std::span<const CodecWish> codecs, CodecWish unless) const {
  CodecWish best = unless;
  for (const CodecWish codec : codecs) {
    if (LoadSeconds(front_, back_, codec) < kWorthwhile * LoadSeconds(front_, back_, best)) best = codec;
  }
  return best;
}

void LoadRace::PickCodec() {
  codec_ = CodecWish::kStored;
  pick_because_.clear();
  if (!KnowsLink() || over()) return;
  const auto load = [&](CodecWish codec) { return LoadSeconds(front_, back_, codec); };
  codec_ = QuickestOf(ExactWishes(), CodecWish::kStored);
  std::string_view reason = "is the quickest that loses nothing";
  const double compute = ComputeSeconds(front_, back_);
  const double aim = options_.aim.has_value() ? absl::ToDoubleSeconds(*options_.aim) : kAimPart * compute;
  if (options_.least < Fidelity::kExact && load(codec_) > aim) {
    const CodecWish exact = codec_;
    const auto meets = [&](CodecWish codec) { return FidelityOf(codec) >= options_.least && load(codec) <= aim; };
    const auto lossy = std::ranges::find_if(LossyWishes(), meets);
    if (lossy != LossyWishes().end()) {
      codec_ = *lossy;
      reason = "loses least of those that meet the aim";
    } else if (FidelityOf(LossyWishes().front()) >= options_.least) {
      codec_ = QuickestOf(LossyWishes(), exact);
      if (codec_ != exact) reason = "is the quickest, and none meets the aim";
    }
  }
  if (codec_ == CodecWish::kStored) return;
  pick_because_ = fmt::format("{} was wished for, which {}: chunks {} to {} in {:.3g} s, {:.3g} s as stored{}",
                              CodecNameOf(codec_), reason, front_, back_ - 1, load(codec_), load(CodecWish::kStored),
                              aim < kForever ? fmt::format(", aim {:.3g} s", aim) : "");
}

size_t LoadRace::MeetingPoint(size_t front, double head_start) const {
  // The further back they meet, the longer the engine takes to get there and the less there is to load.
  size_t low = front;
  size_t high = back_;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (LoadSeconds(middle, back_) <= kEarly * (head_start + ComputeSeconds(front, middle))) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

double LoadRace::Allowance() const {
  const double stake = counts_.late_batches == 0 ? kStake * ComputeSeconds(front_, front_ + 1) : 0;
  return std::max(
      0.0, std::max(absl::ToDoubleSeconds(options_.patience), stake) + saved_ - absl::ToDoubleSeconds(counts_.waited));
}

LoadRace::Move LoadRace::Wait(absl::Time now, absl::Time until) {
  if (!waiting_since_.has_value()) waiting_since_ = now;
  return {.kind = Move::Kind::kWait, .until = until};
}

void LoadRace::Found(size_t hits, std::span<const TierKind> tiers) {
  held_ = std::min(hits, chunks_.size());
  std::copy_n(tiers.begin(), std::min(tiers.size(), *held_), tiers_.begin());
  back_ = *held_;
  PickCodec();
}

LoadRace::Move LoadRace::EngineMove(absl::Time now) {
  if (waiting_since_.has_value()) counts_.waited += now - *std::exchange(waiting_since_, std::nullopt);
  if (over()) return {.kind = Move::Kind::kDone, .chunk = std::max(front_, held_.value_or(front_))};
  if (!found() && counts_.waited < LookupPatience() && LookupIsNear()) {
    return Wait(now, now + (LookupPatience() - counts_.waited));
  }
  if (flight_.has_value() && flight_->begin <= front_) {
    // It may be writing there. It ends by its deadline.
    return Wait(now, flight_->deadline);
  }
  const double compute = ComputeSeconds(front_, front_ + 1);
  if (found() && !gave_up_ && compute < kForever) {
    // Of the batch under way, what is left of it; of the others, all.
    const size_t loaded_next = flight_.has_value() ? flight_->begin : back_;
    double rest = LoadSeconds(front_, loaded_next);
    if (flight_.has_value()) {
      const double in_flight = LoadSeconds(flight_->begin, flight_->end);
      rest += std::max(0.0, in_flight - absl::ToDoubleSeconds(now - flight_->started));
    }
    const double allowance = Allowance();
    if (kTrust * rest <= std::min(compute, allowance)) {
      return Wait(now, now + absl::Seconds(std::min(kTrust * rest + kGrain, allowance)));
    }
  }
  computing_ = true;
  compute_ends_ = now + absl::Seconds(compute);
  return {.kind = Move::Kind::kCompute, .chunk = front_++};
}

void LoadRace::Computed(size_t chunk, absl::Duration elapsed) {
  computing_ = false;
  ++counts_.computed;
  models_.prefill.Observe(chunks_[chunk].first_token, chunks_[chunk].tokens, elapsed);
}

std::optional<LoadRace::Batch> LoadRace::NextBatch(absl::Time now) {
  // The engine computes its first chunk alone: until then nobody knows what loading would have to beat.
  if (!found() || loading_over() || ComputeSeconds(front_, back_) == kForever) return std::nullopt;
  const double head_start = computing_ ? std::max(0.0, absl::ToDoubleSeconds(compute_ends_ - now)) : 0;
  PickCodec();
  const bool knows_link = KnowsLink();
  // What has never been tried brings one chunk first: it may not be what it is thought to be.
  const bool tried = knows_link && models_.codecs.Knows(codec_);
  size_t begin = back_ - 1;
  if (knows_link) {
    const bool all_at_once =
        kTrust * LoadSeconds(front_, back_) <= std::min(Allowance(), ComputeSeconds(front_, front_ + 1));
    const size_t meeting = all_at_once ? front_ : MeetingPoint(front_, head_start);
    if (meeting == back_) {
      gave_up_ = true;
      gave_up_because_ = fmt::format("computing chunks {} to {} was expected to be quicker than to load one of them",
                                     front_, back_ - 1);
      return std::nullopt;
    }
    // Half of the way, so that the other half can heed what this one has taught.
    if (tried) begin = all_at_once ? front_ : back_ - (back_ - meeting + 1) / 2;
  }
  const double arrival = kEarly * (head_start + ComputeSeconds(front_, begin));
  const double expected = knows_link ? kTrust * LoadSeconds(begin, back_) + kGrain : 0;
  const absl::Time deadline = now + absl::Seconds(arrival + std::clamp(expected - arrival, 0.0, Allowance()));
  if (deadline <= now) return std::nullopt;
  ++counts_.batches;
  wished_ = codec_;
  wished_because_ = pick_because_;
  flight_ = Batch{.begin = begin, .end = back_, .started = now, .deadline = deadline, .codec = codec_};
  return flight_;
}

double LoadRace::WireSeconds(size_t begin, size_t end, double encoded_bytes) const {
  double raw_bytes = 0;
  double seconds = 0;  // of the raw bytes
  for (size_t i = begin; i < end; ++i) {
    const auto raw = static_cast<double>(chunks_[i].raw_bytes);
    raw_bytes += raw;
    seconds += raw / models_.link.Bandwidth(tiers_[i]).value_or(kForever);
  }
  return raw_bytes == 0 ? 0 : seconds * encoded_bytes / raw_bytes;
}

template <typename Tell>
void LoadRace::TellLink(size_t begin, size_t end, double encoded_bytes, absl::Duration elapsed, Tell&& tell) {
  std::map<TierKind, double> raw_bytes;
  double all_bytes = 0;
  double all_seconds = 0;
  const auto seconds = [&](TierKind tier, double raw) { return raw / models_.link.Bandwidth(tier).value_or(1); };
  for (size_t i = begin; i < end; ++i) raw_bytes[tiers_[i]] += static_cast<double>(chunks_[i].raw_bytes);
  for (const auto& [tier, raw] : raw_bytes) {
    all_bytes += raw;
    all_seconds += seconds(tier, raw);
  }
  // What is beyond the latency is shared out as the tiers' rates have it so far.
  std::vector<std::tuple<TierKind, uint64_t, absl::Duration>> parts;
  const absl::Duration latency = models_.link.Latency().value_or(absl::ZeroDuration());
  for (const auto& [tier, raw] : raw_bytes) {
    parts.emplace_back(tier, static_cast<uint64_t>(encoded_bytes * raw / all_bytes),
                       latency + (elapsed - latency) * (seconds(tier, raw) / all_seconds));
  }
  for (const auto& [tier, bytes, time] : parts) tell(tier, bytes, time);
}

void LoadRace::Learn(const Batch& batch, const Arrival& arrival, absl::Duration elapsed) {
  LinkModel& link = models_.link;
  CodecModel& codecs = models_.codecs;
  uint64_t raw = 0;
  uint64_t raw_ready = 0;
  for (size_t i = batch.begin; i < batch.end; ++i) {
    raw += chunks_[i].raw_bytes;
    if (i >= batch.end - arrival.ready) raw_ready += chunks_[i].raw_bytes;
  }
  const auto encoded = static_cast<double>(arrival.encoded_bytes);
  const absl::Duration moving = std::max(elapsed - link.Latency().value_or(absl::ZeroDuration()), elapsed / 2);
  const bool recoding = CodecModel::RecodingMayHaveTaken(batch.codec, raw, moving);
  codecs.Observe(batch.codec, raw_ready, arrival.encoded_bytes, arrival.work);
  if (arrival.ready < batch.end - batch.begin) {
    // Twice: it was not there by then, and would have taken some time more.
    if (recoding) return codecs.ObserveRecoding(batch.codec, raw, 2 * moving);
    TellLink(batch.begin, batch.end, static_cast<double>(raw) * codecs.Ratio(batch.codec), elapsed,
             [&](TierKind tier, uint64_t bytes, absl::Duration time) { link.ObserveTimeout(tier, bytes, time); });
    return;
  }
  if (recoding) {
    const double explained =
        std::max(WireSeconds(batch.begin, batch.end, encoded), absl::ToDoubleSeconds(arrival.work));
    const absl::Duration known = absl::Seconds(codecs.RecodeSeconds(batch.codec) * static_cast<double>(raw));
    const bool held_up = absl::ToDoubleSeconds(moving) > kUnexplained * explained;
    codecs.ObserveRecoding(batch.codec, raw, held_up ? moving : std::min(moving, known));
  }
  const bool link_alone = !recoding && arrival.work < moving / 2;
  TellLink(batch.begin, batch.end, encoded, elapsed, [&](TierKind tier, uint64_t bytes, absl::Duration time) {
    link_alone ? link.Observe(tier, bytes, time) : link.ObserveAtLeast(tier, bytes, time);
  });
}

void LoadRace::Loaded(const Batch& batch, const Arrival& arrival, absl::Time now) {
  flight_.reset();
  const size_t ready = arrival.ready;
  const absl::Duration elapsed = now - batch.started;
  Learn(batch, arrival, elapsed);
  if (ready < batch.end - batch.begin) {
    ++counts_.late_batches;
    // What keeps one chunk away keeps those before it away as well, more often than not; one more try is made for a
    // part that came, none for nothing.
    if (ready == 0) {
      gave_up_ = true;
      gave_up_because_ = fmt::format("chunks {} to {} were not there within {}", batch.begin, batch.end - 1,
                                     absl::FormatDuration(elapsed));
    }
  }
  back_ = batch.end - ready;
  counts_.loaded += ready;
  const double spared = ComputeSeconds(back_, batch.end);
  if (spared < kForever) saved_ += spared;
}

std::string LoadRace::Why() const {
  std::string why = fmt::format(
      "of {} chunks held, {} were computed from the front and {} loaded from the back in {} "
      "batches; the engine waited {}",
      held_.value_or(0), counts_.computed, counts_.loaded, counts_.batches, absl::FormatDuration(counts_.waited));
  if (!wished_because_.empty()) why += "; " + wished_because_;
  if (!gave_up_because_.empty()) why += "; " + gave_up_because_;
  return why;
}

}  // namespace kdn
