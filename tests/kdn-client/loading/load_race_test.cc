#include "kdn-client/loading/load_race.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace kdn {
namespace {

constexpr uint32_t kTokens = 256;
constexpr double kBytes = 1e6;  // of a chunk

// An engine and a link, in simulated time.
struct World {
  double token_seconds = 1e-4;                                 // to compute a token at the start …
  double position_seconds = 1e-9;                              // … and more for every position after it
  double bandwidth = 1e8;                                      // bytes per second
  double latency = 1e-3;                                       // of a call
  double stalls_at = std::numeric_limits<double>::infinity();  // from then on nothing arrives

  double Compute(size_t chunk) const {
    return kTokens * (token_seconds + position_seconds * (static_cast<double>(chunk) * kTokens + kTokens / 2.0));
  }
  double Compute(size_t begin, size_t end) const {
    double all = 0;
    for (size_t i = begin; i < end; ++i) all += Compute(i);
    return all;
  }
  // The least time in which `chunks` chunks, of which `hits` are held, can be in place.
  double Best(size_t chunks, size_t hits) const {
    double best = Compute(0, chunks);
    for (size_t meeting = 0; meeting < hits; ++meeting) {
      const double load = 2 * latency + static_cast<double>(hits - meeting) * kBytes / bandwidth;
      best = std::min(best, std::max(Compute(0, meeting), load) + Compute(hits, chunks));
    }
    return best;
  }
};

// What an engine knows from request to request.
struct Memory {
  PrefillModel prefill;
  LinkModel link;
};

struct Outcome {
  double seconds = 0;  // until all chunks were in place
  LoadRace::Counts counts;
  std::string why;
};

// One request: the threads of engine and loader, one event after the other.
class Request {
 public:
  Request(const World& world, Memory& memory, size_t chunks, size_t hits)
      : world_(world), memory_(memory), chunks_(chunks), hits_(hits), race_(MakeRace()) {}

  Outcome Run() {
    for (int events = 0; !done_; ++events) {
      if (events > 100'000) {
        ADD_FAILURE() << "it does not end";
        break;
      }
      MoveEngine();
      MoveLoader();
      if (!done_) Advance();
    }
    return {.seconds = now_ + world_.Compute(in_place_, chunks_), .counts = race_.counts(), .why = race_.Why()};
  }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  LoadRace MakeRace() {
    std::vector<RaceChunk> chunks;
    for (size_t i = 0; i < chunks_; ++i) {
      chunks.push_back({.first_token = static_cast<uint32_t>(i) * kTokens,
                        .tokens = kTokens,
                        .raw_bytes = static_cast<uint64_t>(kBytes)});
    }
    const auto all = memory_.prefill.Predict(0, static_cast<uint32_t>(chunks_) * kTokens);
    return LoadRace(std::move(chunks), memory_.prefill, memory_.link, all.value_or(absl::ZeroDuration()) * 0.02);
  }
  static absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }
  static double Seconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

  void MoveEngine() {
    if (computed_at_ < kNever) return;
    const LoadRace::Move move = race_.EngineMove(At(now_));
    wake_at_ = kNever;
    if (move.kind == LoadRace::Move::Kind::kDone) {
      done_ = true;
      in_place_ = move.chunk;
    } else if (move.kind == LoadRace::Move::Kind::kCompute) {
      EXPECT_FALSE(batch_.has_value() && batch_->begin <= move.chunk && move.chunk < batch_->end)
          << "chunk " << move.chunk << " is computed while it is written to";
      computing_ = move.chunk;
      computed_at_ = now_ + world_.Compute(move.chunk);
    } else {
      wake_at_ = std::max(Seconds(move.until), now_ + 1e-9);
    }
  }

  void MoveLoader() {
    if (batch_.has_value()) return;
    batch_ = race_.NextBatch(At(now_));
    if (!batch_.has_value()) return;
    EXPECT_TRUE(found_);
    EXPECT_LE(batch_->end, hits_);
    const auto size = static_cast<double>(batch_->end - batch_->begin);
    const double deadline = Seconds(batch_->deadline);
    const double in_time =
        std::floor((std::min(deadline, world_.stalls_at) - now_ - world_.latency) * world_.bandwidth / kBytes);
    ready_ = static_cast<size_t>(std::clamp(in_time, 0.0, size));
    loaded_at_ =
        ready_ == static_cast<size_t>(size) ? now_ + world_.latency + size * kBytes / world_.bandwidth : deadline;
  }

  void Advance() {
    const double found_at = found_ ? kNever : world_.latency;
    const double loaded_at = batch_.has_value() ? loaded_at_ : kNever;
    now_ = std::min({found_at, loaded_at, computed_at_, wake_at_});
    if (now_ == found_at) {
      found_ = true;
      memory_.link.ObserveCall(absl::Seconds(world_.latency));
      race_.Found(hits_);
    } else if (now_ == loaded_at) {
      const LoadRace::Batch batch = *batch_;
      batch_.reset();
      race_.Loaded(batch, ready_, At(now_));
    } else if (now_ == computed_at_) {
      race_.Computed(computing_, absl::Seconds(world_.Compute(computing_)));
      computed_at_ = kNever;
    }
  }

  const World world_;
  Memory& memory_;
  const size_t chunks_;
  const size_t hits_;
  LoadRace race_;

  double now_ = 0;
  bool found_ = false;
  bool done_ = false;
  size_t in_place_ = 0;
  size_t computing_ = 0;
  double computed_at_ = kNever;
  double wake_at_ = kNever;
  std::optional<LoadRace::Batch> batch_;
  size_t ready_ = 0;
  double loaded_at_ = kNever;
};

Outcome RunRequest(const World& world, Memory& memory, size_t chunks, size_t hits) {
  return Request(world, memory, chunks, hits).Run();
}

World RandomWorld(std::mt19937_64& random) {
  const auto between = [&](double low, double high) {
    return std::exp(std::uniform_real_distribution<>(std::log(low), std::log(high))(random));
  };
  return {.token_seconds = between(1e-5, 1e-3),
          .position_seconds = between(1e-10, 1e-7),
          .bandwidth = between(1e5, 5e9),
          .latency = between(1e-5, 0.1)};
}

TEST(LoadRaceTest, IsNeverMuchSlowerThanComputingAndNearlyAsQuickAsCanBe) {
  int requests = 0;
  int over = 0;
  double taken = 0;
  double best = 0;
  for (uint32_t seed = 0; seed < 4000; ++seed) {
    std::mt19937_64 random(seed);
    const World world = RandomWorld(random);
    Memory memory;
    for (int request = 0; request < 5; ++request) {
      const size_t chunks = 1 + random() % 32;
      const size_t hits = random() % (chunks + 1);
      const Outcome outcome = RunRequest(world, memory, chunks, hits);
      if (request == 0) continue;  // it learns
      const double ratio = outcome.seconds / world.Compute(0, chunks);
      EXPECT_LT(ratio, 1.15) << "seed " << seed << ", request " << request << ": " << outcome.why;
      ++requests;
      if (ratio > 1.03) ++over;
      taken += ratio;
      best += world.Best(chunks, hits) / world.Compute(0, chunks);
    }
  }
  EXPECT_LT(over, requests / 100) << "of " << requests;
  EXPECT_LT(taken / requests, 1.05 * best / requests);
}

TEST(LoadRaceTest, LinkThatStallsCostsLittle) {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937_64 random(seed);
    World world = RandomWorld(random);
    Memory memory;
    for (int request = 0; request < 4; ++request) RunRequest(world, memory, 24, 20);
    world.stalls_at = std::uniform_real_distribution<>(0, world.Compute(0, 24))(random);
    const Outcome outcome = RunRequest(world, memory, 24, 20);
    EXPECT_LT(outcome.seconds, 1.1 * world.Compute(0, 24)) << "seed " << seed << ": " << outcome.why;
  }
}

TEST(LoadRaceTest, FastLinkLeavesTheEngineNothingToCompute) {
  const World world = {.bandwidth = 5e9, .latency = 1e-4};
  Memory memory;
  RunRequest(world, memory, 31, 31);
  const Outcome outcome = RunRequest(world, memory, 31, 31);
  EXPECT_EQ(outcome.counts.computed, 0u);
  EXPECT_EQ(outcome.counts.loaded, 31u);
  EXPECT_LT(outcome.seconds, 0.03 * world.Compute(0, 31));
}

TEST(LoadRaceTest, SlowLinkBringsWhatItCanWhileTheEngineComputes) {
  const World world = {.token_seconds = 1e-3, .bandwidth = 1.25e6, .latency = 0.02};  // 10 Mbit/s, 0.8 s a chunk
  Memory memory;
  RunRequest(world, memory, 31, 31);
  const Outcome outcome = RunRequest(world, memory, 31, 31);
  EXPECT_GT(outcome.counts.loaded, 5u);
  EXPECT_GT(outcome.counts.computed, 15u);
  EXPECT_EQ(outcome.counts.loaded + outcome.counts.computed, 31u);
  EXPECT_LT(outcome.seconds, 0.85 * world.Compute(0, 31));
}

TEST(LoadRaceTest, LinkThatIsTooSlowIsLeftAloneAndItSaysWhy) {
  Memory memory;
  memory.link.Observe(TierKind::kMemory, 1'000'000, absl::Seconds(10));
  memory.prefill.Observe(0, 256, absl::Milliseconds(3));
  LoadRace race({{.tokens = 256, .raw_bytes = 1'000'000}, {.first_token = 256, .tokens = 256, .raw_bytes = 1'000'000}},
                memory.prefill, memory.link, absl::ZeroDuration());
  race.Found(2);
  EXPECT_FALSE(race.NextBatch(absl::UnixEpoch()).has_value());
  EXPECT_TRUE(race.loading_over());
  EXPECT_THAT(race.Why(), ::testing::HasSubstr("expected to be quicker"));
}

TEST(LoadRaceTest, NothingHeldCostsNothing) {
  const World world = {.latency = 0.05};
  Memory memory;
  for (int request = 0; request < 3; ++request) {
    const Outcome outcome = RunRequest(world, memory, 20, 0);
    EXPECT_LE(outcome.seconds, 1.021 * world.Compute(0, 20));
    EXPECT_EQ(outcome.counts.batches, 0u);
  }
}

}  // namespace
}  // namespace kdn
