// FetchSink::Fork: several threads deliver one fetch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "kdn-client/fetch_sink.h"
#include "storage/base/status.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::UnorderedElementsAre;

constexpr uint32_t kChunks = 12;
constexpr size_t kThreads = 4;

struct Param {
  std::string name;
  std::string codec;
  uint32_t dim;  // of K; large ones are decoded on other threads
};

class FetchForkTest : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    space_.layers[0].k_dim = GetParam().dim;
    id_ = ComputeSpaceId(space_).value();
    refs_ = Chain(space_, tokens_);
    computed_ = std::make_unique<EngineMemory>(EngineMemory::WithKv(space_, tokens_));
    fetched_ = std::make_unique<EngineMemory>(space_, tokens_);
    const KvView source = KvView::Over(space_, computed_->view(), {}).value();
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(id_, space_, ref, source, **FindCodec(GetParam().codec)).value());
    }
    view_ = std::make_unique<KvView>(KvView::Over(space_, fetched_->view(), {}).value());
  }

  void SendSlab(SlabSink& sink, size_t chunk, uint32_t slab) {
    const ByteSpan bytes = chunks_[chunk].slabs[slab];
    const size_t half = bytes.size() / 2;
    sink.OnPart(chunk, slab, 0, bytes.first(half));
    sink.OnPart(chunk, slab, half, bytes.subspan(half));
  }

  // Thread t of `kThreads` delivers the chunks t, t + kThreads …, by a fork, the first thread by the sink itself.
  void Deliver(FetchSink& sink, bool layer_major) {
    std::vector<std::unique_ptr<SlabSink>> forks;
    for (size_t t = 1; t < kThreads; ++t) forks.push_back(sink.Fork());
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        SlabSink& mine = t == 0 ? sink : *forks[t - 1];
        const auto slabs = static_cast<uint32_t>(chunks_[0].slabs.size());
        for (uint32_t first = 0; first < (layer_major ? slabs : 1); ++first) {
          for (size_t chunk = t; chunk < chunks_.size(); chunk += kThreads) {
            EXPECT_TRUE(first > 0 || mine.OnChunk(chunk, chunks_[chunk].manifest, TierKind::kMemory));
            for (uint32_t slab = first; slab < (layer_major ? first + 1 : slabs); ++slab) SendSlab(mine, chunk, slab);
          }
        }
        if (t > 0) forks[t - 1] = nullptr;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  KvSpace space_ = TinySpace();
  const uint32_t tokens_ = kChunks * kChunkTokens;
  SpaceId id_;
  std::vector<ChunkRef> refs_;
  std::unique_ptr<EngineMemory> computed_;
  std::unique_ptr<EngineMemory> fetched_;
  std::unique_ptr<KvView> view_;
  std::vector<Chunk> chunks_;
};

TEST_P(FetchForkTest, ChunksComeOnSeveralThreadsAndEachLayerIsToldOnceWhenAllHaveIt) {
  for (const bool layer_major : {false, true}) {
    std::vector<uint32_t> layers;  // not guarded: calls come one at a time
    std::atomic<int> inside{0};
    const auto on_layer = [&](uint32_t layer) {
      EXPECT_EQ(inside.fetch_add(1), 0);
      layers.push_back(layer);
      EXPECT_EQ(fetched_->Rows(layer, 0, tokens_), computed_->Rows(layer, 0, tokens_)) << "by then it is in place";
      inside.fetch_sub(1);
    };
    fetched_ = std::make_unique<EngineMemory>(space_, tokens_);
    view_ = std::make_unique<KvView>(KvView::Over(space_, fetched_->view(), {}).value());
    FetchSink sink(id_, space_, refs_, *view_, {.on_layer = on_layer});
    Deliver(sink, layer_major);
    const std::vector<ChunkOutcome> outcomes = std::move(sink).Finish(absl::OkStatus());
    for (const ChunkOutcome& outcome : outcomes) EXPECT_EQ(outcome.miss.reason, MissReason::kNone);
    EXPECT_TRUE(*fetched_ == *computed_);
    EXPECT_THAT(layers, UnorderedElementsAre(0, 1, 2, 3));
  }
}

TEST_P(FetchForkTest, WhatOneThreadBreaksIsNoConcernOfTheOthers) {
  std::vector<uint32_t> layers;
  FetchSink sink(id_, space_, refs_, *view_, {.on_layer = [&](uint32_t layer) { layers.push_back(layer); }});
  std::unique_ptr<SlabSink> fork = sink.Fork();
  std::thread breaking([&] {
    // The first slab comes, of the second one a half, and then another chunk.
    ASSERT_TRUE(fork->OnChunk(0, chunks_[0].manifest, TierKind::kMemory));
    SendSlab(*fork, 0, 0);
    fork->OnPart(0, 1, 0, ByteSpan(chunks_[0].slabs[1]).first(8));
    ASSERT_TRUE(fork->OnChunk(1, chunks_[1].manifest, TierKind::kMemory));
    SendSlab(*fork, 1, 0);
    fork = nullptr;
  });
  for (size_t chunk = 2; chunk < chunks_.size(); ++chunk) {
    ASSERT_TRUE(sink.OnChunk(chunk, chunks_[chunk].manifest, TierKind::kMemory));
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) SendSlab(sink, chunk, slab);
  }
  breaking.join();
  const std::vector<ChunkOutcome> outcomes = std::move(sink).Finish(Unavailable("gone"));
  EXPECT_EQ(outcomes[0].miss.reason, MissReason::kProtocol);
  EXPECT_EQ(outcomes[1].miss.reason, MissReason::kUnreachable);
  for (size_t chunk = 2; chunk < chunks_.size(); ++chunk) EXPECT_EQ(outcomes[chunk].miss.reason, MissReason::kNone);
  EXPECT_THAT(layers, testing::IsEmpty());
}

TEST_P(FetchForkTest, AChunkThatCannotGoOnInOneForkIsMissedThereForGood) {
  FetchSink sink(id_, space_, refs_, *view_, {});
  {
    const std::unique_ptr<SlabSink> fork = sink.Fork();
    ASSERT_TRUE(fork->OnChunk(0, chunks_[0].manifest, TierKind::kMemory));
    fork->OnMiss(0, {MissReason::kUnreachable, "the node went away"});
  }
  EXPECT_FALSE(sink.OnChunk(0, chunks_[0].manifest, TierKind::kMemory));
  EXPECT_EQ(std::move(sink).Finish(absl::OkStatus())[0].miss.reason, MissReason::kUnreachable);
}

INSTANTIATE_TEST_SUITE_P(All, FetchForkTest,
                         testing::Values(Param{"raw", "raw", 16}, Param{"zstd", "zstd", 16},
                                         Param{"large_raw", "raw", 2048}, Param{"large_zstd", "zstd", 2048}),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace kdn
