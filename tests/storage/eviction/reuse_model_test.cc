#include "storage/eviction/reuse_model.h"

#include <gtest/gtest.h>

#include "storage/eviction/reuse_sampler.h"

namespace kdn {
namespace {

constexpr uint16_t kRoot = 0;
constexpr uint16_t kA = 1;
constexpr uint16_t kB = 2;

ReuseModel NewModel() { return ReuseModel({0, kRoot, kRoot}); }

TEST(ReuseModelTest, WithoutEvidenceTheOrderIsNotThatOfLru) {
  const ReuseModel model = NewModel();
  for (uint64_t age = 64; age < (uint64_t{1} << 24); age *= 2) {
    EXPECT_GT(model.Worth(kA, age), model.Worth(kA, age * 2)) << age;
    EXPECT_FLOAT_EQ(model.Worth(kA, age), model.Worth(kB, age)) << age;
  }
}

TEST(ReuseModelTest, BinsOverlapOrRunBackwards) {
  int last = 0;
  for (uint64_t age = 0; age < 100'000; ++age) {
    const int bin = ReuseModel::BinOf(age);
    ASSERT_TRUE(bin == last || bin == last + 1) << age;
    last = bin;
  }
  EXPECT_EQ(ReuseModel::BinOf(UINT64_MAX), ReuseModel::kBins - 1);
}

TEST(ReuseModelTest, AClassThatIsNeverAskedForAgainIsKept) {
  ReuseModel model = NewModel();
  for (int i = 0; i < 1000; ++i) {
    model.AddHit(kA, 900);
    model.AddLoss(kB, 5000);
  }
  model.Refresh();
  for (const uint64_t age : {100U, 300U, 800U}) EXPECT_GT(model.Worth(kA, age), 10 * model.Worth(kB, age)) << age;
}

TEST(ReuseModelTest, AChunkLosesWorthBeforeItsTimeComes) {
  // Half of them are asked for again after about 1000 ticks, and at no other time.
  ReuseModel model = NewModel();
  for (uint64_t i = 0; i < 1000; ++i) {
    model.AddHit(kA, 950 + i / 10);
    model.AddLoss(kA, 20'000);
  }
  model.Refresh();
  EXPECT_GT(model.Worth(kA, 700), model.Worth(kA, 100)) << "the closer, the better";
  EXPECT_GT(model.Worth(kA, 100), 5 * model.Worth(kA, 4000)) << "past its time";
}

TEST(ReuseModelTest, ChunksThatStillWaitCountForNothing) {
  ReuseModel hopeful = NewModel();
  ReuseModel sober = NewModel();
  for (int i = 0; i < 100; ++i) {
    hopeful.AddHit(kA, 900);
    sober.AddHit(kA, 900);
  }
  for (int i = 0; i < 900; ++i) sober.AddWaiting(kA, 900);
  hopeful.Refresh();
  sober.Refresh();
  EXPECT_GT(hopeful.Worth(kA, 500), 3 * sober.Worth(kA, 500));
}

TEST(ReuseModelTest, OldEvidenceOutweighsNew) {
  ReuseModel model = NewModel();
  for (int i = 0; i < 1000; ++i) model.AddHit(kA, 900);
  model.Fade(0.001F);
  for (int i = 0; i < 100; ++i) model.AddLoss(kA, 20'000);
  for (int i = 0; i < 100; ++i) model.AddHit(kB, 900);
  model.Refresh();
  EXPECT_LT(model.Worth(kA, 500), model.Worth(kB, 500));
}

uint16_t ClassByTurn(const ChainRun& run) { return run.turn == 0 ? kA : kB; }

TEST(ReuseSamplerTest, RunsLeakFromTheSample) {
  ReuseModel model = NewModel();
  RunTable runs;
  ReuseSampler sampler(model, runs, ClassByTurn);
  sampler.Configure(64, 1);
  for (uint64_t now = 1; now < 10'000; ++now) {
    ChainRun run;
    run.used = now;
    const RunId id = runs.Add(run);
    sampler.Use(now % 200 * 0x9e3779b97f4a7c15u, id, now);
    runs.Release(id);
    ASSERT_LE(runs.live(), 65);
  }
}

TEST(ReuseSamplerTest, ReuseIsOnlySeenWhileAChunkIsResident) {
  // The sampler is told of uses alone, and knows nothing of residence: a key that comes every 500 ticks is learned so.
  ReuseModel model = NewModel();
  RunTable runs;
  ReuseSampler sampler(model, runs, ClassByTurn);
  sampler.Configure(1000, 1);
  for (uint64_t now = 1; now < 20'000; ++now) {
    ChainRun run;
    run.used = now;
    run.turn = now % 2;  // odd ticks: 250 keys in turn; even ticks: keys that never come back
    const RunId id = runs.Add(run);
    const uint64_t key = now % 2 == 1 ? now % 500 : 1'000'000 + now;
    sampler.Use(key * 0x9e3779b97f4a7c15u, id, now);
    runs.Release(id);
  }
  sampler.ReportWaiting(20'000);
  model.Refresh();
  EXPECT_GT(model.Worth(kB, 400), 10 * model.Worth(kA, 400));
}

}  // namespace
}  // namespace kdn
