#include "kdn-client/loading/load_race.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
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
// Waits are not cut shorter than threads take to wake up.
constexpr double kGrain = 1e-4;

}  // namespace

LoadRace::LoadRace(std::vector<RaceChunk> chunks, PrefillModel& prefill, LinkModel& link, absl::Duration patience)
    : chunks_(std::move(chunks)), prefill_(prefill), link_(link), patience_(patience), back_(chunks_.size()) {}

double LoadRace::ComputeSeconds(size_t begin, size_t end) const {
  if (begin >= end) return 0;
  uint32_t tokens = 0;
  for (size_t i = begin; i < end; ++i) tokens += chunks_[i].tokens;
  const std::optional<absl::Duration> expected = prefill_.Predict(chunks_[begin].first_token, tokens);
  return expected.has_value() ? absl::ToDoubleSeconds(*expected) : kForever;
}

double LoadRace::LoadSeconds(size_t begin, size_t end) const {
  if (begin >= end) return 0;
  uint64_t bytes = 0;
  for (size_t i = begin; i < end; ++i) bytes += chunks_[i].raw_bytes;
  const std::optional<absl::Duration> expected = link_.Predict(TierKind::kNone, bytes);
  return expected.has_value() ? absl::ToDoubleSeconds(*expected) : kForever;
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
  return std::max(0.0,
                  std::max(absl::ToDoubleSeconds(patience_), stake) + saved_ - absl::ToDoubleSeconds(counts_.waited));
}

LoadRace::Move LoadRace::Wait(absl::Time now, absl::Time until) {
  if (!waiting_since_.has_value()) waiting_since_ = now;
  return {.kind = Move::Kind::kWait, .until = until};
}

void LoadRace::Found(size_t hits) {
  held_ = std::min(hits, chunks_.size());
  back_ = *held_;
}

LoadRace::Move LoadRace::EngineMove(absl::Time now) {
  if (waiting_since_.has_value()) counts_.waited += now - *std::exchange(waiting_since_, std::nullopt);
  if (over()) return {.kind = Move::Kind::kDone, .chunk = std::max(front_, held_.value_or(front_))};
  if (!found() && counts_.waited < patience_) return Wait(now, now + (patience_ - counts_.waited));
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
  prefill_.Observe(chunks_[chunk].first_token, chunks_[chunk].tokens, elapsed);
}

std::optional<LoadRace::Batch> LoadRace::NextBatch(absl::Time now) {
  // The engine computes its first chunk alone: until then nobody knows what loading would have to beat.
  if (!found() || loading_over() || ComputeSeconds(front_, back_) == kForever) return std::nullopt;
  const double head_start = computing_ ? std::max(0.0, absl::ToDoubleSeconds(compute_ends_ - now)) : 0;
  const bool knows_link = link_.Bandwidth(TierKind::kNone).has_value();
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
    begin = all_at_once ? front_ : back_ - (back_ - meeting + 1) / 2;
  }
  const double arrival = kEarly * (head_start + ComputeSeconds(front_, begin));
  const double expected = knows_link ? kTrust * LoadSeconds(begin, back_) + kGrain : 0;
  const absl::Time deadline = now + absl::Seconds(arrival + std::clamp(expected - arrival, 0.0, Allowance()));
  if (deadline <= now) return std::nullopt;
  ++counts_.batches;
  flight_ = Batch{.begin = begin, .end = back_, .started = now, .deadline = deadline};
  return flight_;
}

void LoadRace::Loaded(const Batch& batch, size_t ready, absl::Time now) {
  flight_.reset();
  uint64_t bytes = 0;
  for (size_t i = batch.end - ready; i < batch.end; ++i) bytes += chunks_[i].raw_bytes;
  const absl::Duration elapsed = now - batch.started;
  if (ready == batch.end - batch.begin) {
    link_.Observe(TierKind::kNone, bytes, elapsed);
  } else {
    ++counts_.late_batches;
    uint64_t wanted = 0;
    for (size_t i = batch.begin; i < batch.end; ++i) wanted += chunks_[i].raw_bytes;
    link_.ObserveTimeout(TierKind::kNone, wanted, elapsed);
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
  if (!gave_up_because_.empty()) why += "; " + gave_up_because_;
  return why;
}

}  // namespace kdn
