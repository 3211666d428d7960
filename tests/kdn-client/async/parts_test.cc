// The small parts of kdn-client/async.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kdn-client/async/first_answer.h"
#include "kdn-client/async/kv_stage.h"
#include "kdn-client/async/task_threads.h"
#include "storage/base/backoff.h"
#include "storage/base/mutex.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

TEST(Backoff, DoublesUpToItsLimitLessARandomPart) {
  Backoff backoff(absl::Milliseconds(20), absl::Milliseconds(100), /*seed=*/1);
  for (int round = 0; round < 2; ++round) {
    for (const int full : {20, 40, 80, 100, 100, 100}) {
      const absl::Duration wait = backoff.Next();
      EXPECT_GE(wait, absl::Milliseconds(full) / 2) << full;
      EXPECT_LE(wait, absl::Milliseconds(full)) << full;
    }
    backoff.Reset();
  }
  Backoff other(absl::Milliseconds(20), absl::Milliseconds(100), /*seed=*/2);
  EXPECT_NE(backoff.Next(), other.Next());
}

TEST(FirstAnswers, DelayIsWhatNearlyAllTookWithinBounds) {
  FirstAnswers answers;
  const absl::Duration least = absl::Milliseconds(1);
  const absl::Duration most = absl::Milliseconds(100);
  EXPECT_EQ(answers.Delay(least, most), most);
  for (int i = 1; i <= 7; ++i) answers.Add(absl::Milliseconds(10));
  EXPECT_EQ(answers.Delay(least, most), most);
  answers.Add(absl::Milliseconds(10));
  EXPECT_EQ(answers.Delay(least, most), absl::Milliseconds(10));
  for (int i = 0; i < 128; ++i) answers.Add(absl::Microseconds(i < 120 ? 2000 : 50000));
  EXPECT_EQ(answers.Delay(least, most), absl::Microseconds(50000));
  for (int i = 0; i < 128; ++i) answers.Add(absl::Microseconds(i < 124 ? 2000 : 50000));
  EXPECT_EQ(answers.Delay(least, most), absl::Microseconds(2000));
  for (int i = 0; i < 128; ++i) answers.Add(absl::Microseconds(10));
  EXPECT_EQ(answers.Delay(least, most), least);
  for (int i = 0; i < 128; ++i) answers.Add(absl::Seconds(1));
  EXPECT_EQ(answers.Delay(least, most), most);
}

TEST(TokenBucket, SpendsTheShareThatWasEarned) {
  TokenBucket bucket(0.25, 2);
  int spent = 0;
  for (int call = 0; call < 400; ++call) {
    bucket.Earn();
    spent += bucket.Spend() ? 1 : 0;
  }
  EXPECT_GE(spent, 100);
  EXPECT_LE(spent, 101);
  for (int call = 0; call < 400; ++call) bucket.Earn();
  EXPECT_TRUE(bucket.Spend());
  EXPECT_TRUE(bucket.Spend());
  EXPECT_FALSE(bucket.Spend());
  TokenBucket none(0, 10);
  none.Earn();
  EXPECT_FALSE(none.Spend());
}

TEST(TaskThreads, TasksThatBlockDoNotHoldUpOthers) {
  Mutex mu;
  CondVar changed;
  int arrived = 0;
  TaskThreads threads;
  for (int i = 0; i < 8; ++i) {
    threads.Run([&] {
      MutexLock lock(mu);
      ++arrived;
      changed.NotifyAll();
      while (arrived < 8) changed.Wait(mu);
    });
  }
  MutexLock lock(mu);
  while (arrived < 8) changed.Wait(mu);
}

TEST(KvStage, ChunksAreCopiedToWhereTheyLieAlsoWhenTheyCrossBlocks) {
  const KvSpace space = TinySpace();
  EngineMemory memory = EngineMemory::WithKv(space, 100);
  std::vector<ChunkRef> chunks = Chain(space, size_t{3} * kChunkTokens);
  chunks[0].first_token = 5;                     // [5, 21)
  chunks[1].first_token = 21;                    // [21, 37), of which the first part lies in a block of chunk 0
  chunks[2].first_token = 6 * kChunkTokens - 3;  // [93, 100)
  chunks[2].tokens = 7;
  const KvView source = KvView::Over(space, memory.view(), {}).value();
  KvStage stage(space, chunks);
  stage.CopyFrom(source);
  const KvView copy = KvView::Over(space, stage.layout(), {}).value();
  ASSERT_TRUE(copy.CheckChunks(chunks).ok());
  ASSERT_TRUE(copy.CheckHoldsAllHeads().ok());
  for (const ChunkRef& chunk : chunks) {
    for (const SlabInfo& slab : SlabsOf(space, chunk.tokens)) {
      Buffer expected(slab.shape.RawSize());
      Buffer copied(slab.shape.RawSize());
      source.Place(slab, {.at = chunk.first_token}).Read(expected.span());
      copy.Place(slab, {.at = chunk.first_token}).Read(copied.span());
      EXPECT_TRUE(std::ranges::equal(expected.span(), copied.span()));
    }
  }
  EXPECT_EQ(KvStage::BytesOf(space, chunks[0]), 2 * KvStage::BytesOf(space, Chain(space, kChunkTokens)[0]));
}

}  // namespace
}  // namespace kdn
