#include "kdn-client/blend/segment_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kdn-client/blend/kv_rows.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "tests/kdn-client/blend/toy_model.h"
#include "tests/kdn-client/forwarding_transport.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kSourceLayers = 4;

// Loses one chunk of every fetch after so many slabs of it, or holds up the fetch until it is told to go on.
class TroubledTransport final : public ForwardingTransport {
 public:
  using ForwardingTransport::ForwardingTransport;

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    if (stalled) {
      while (absl::Now() < deadline && !(query.cancel != nullptr && query.cancel->cancelled())) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      return DeadlineExceeded("the link stalled");
    }
    if (!lost.has_value()) return ForwardingTransport::Fetch(query, deadline, sink);
    CuttingSink cut(sink, query, *lost, slabs_before_loss);
    return ForwardingTransport::Fetch(query, deadline, cut);
  }

  bool stalled = false;
  std::optional<ChunkKey> lost;
  uint32_t slabs_before_loss = 0;

 private:
  class CuttingSink final : public SlabSink {
   public:
    CuttingSink(SlabSink& next, const FetchQuery& query, const ChunkKey& lost, uint32_t slabs)
        : next_(next), slabs_(slabs) {
      for (size_t i = 0; i < query.keys.size(); ++i) {
        if (query.keys[i] == lost) lost_ = i;
      }
    }
    bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
      return next_.OnChunk(chunk, manifest, tier);
    }
    void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
      if (chunk == lost_ && offset == 0 && slabs_-- == 0) next_.OnMiss(chunk, {MissReason::kCorrupt, "on the way"});
      next_.OnPart(chunk, slab, offset, part);
    }
    void OnMiss(size_t chunk, const Miss& miss) override { next_.OnMiss(chunk, miss); }

   private:
    SlabSink& next_;
    size_t lost_ = SIZE_MAX;
    uint32_t slabs_;
  };
};

class SegmentSourceTest : public ::testing::Test {
 protected:
  SegmentSourceTest() {
    transport_ = std::make_shared<TroubledTransport>(MakeEmbeddedTransport(TieredStore::Open({}).value()));
    client_ = Client::Create(space_, transport_).value();
    std::mt19937 random(1);
    for (uint32_t i = 0; i < 60; ++i) tokens_.push_back(static_cast<Token>(random() % 1000));
  }

  void StoreSegment(const PromptSegment& segment) {
    StoreTokens(std::span(tokens_).subspan(segment.begin, segment.tokens));
  }
  void StoreSegments() {
    for (const PromptSegment& segment : segments_) StoreSegment(segment);
  }

  void StoreTokens(std::span<const Token> tokens) {
    const ToyMemory memory(space_, static_cast<uint32_t>(tokens.size()));
    ToyPrefill(space_, memory.layout(), tokens);
    const auto chunks = ChunkChain(client_->space_id(), space_.chunk_tokens, tokens).value();
    ASSERT_EQ(client_->Store(chunks, memory.layout(), {}).value().Stored(), chunks.size());
  }

  struct Result {
    BlendReport report;
    SegmentReport loaded;
    std::vector<double> output;
  };
  Result Run(const BlendSchedule& schedule, absl::Duration deadline = absl::Seconds(20)) {
    const ToyMemory memory(space_, static_cast<uint32_t>(tokens_.size()));
    ToyModel model(space_, memory.layout(), static_cast<uint32_t>(tokens_.size()));
    const uint32_t first = schedule.checks.empty() ? UINT32_MAX : schedule.checks.front().layer;
    auto source = SegmentSource::Start(*client_, tokens_, segments_, memory.layout(),
                                       {.deadline = deadline, .first_layer = first});
    EXPECT_TRUE(source.ok()) << source.status();
    auto report = Blend(model, {.tokens = tokens_, .runs = (*source)->runs(), .kv = memory.layout()}, **source,
                        {.schedule = schedule});
    EXPECT_TRUE(report.ok()) << report.status();
    return {*std::move(report), (*source)->Finish(), model.Output()};
  }

  double DistanceToFullPrefill(const std::vector<double>& output) const {
    const ToyMemory memory(space_, static_cast<uint32_t>(tokens_.size()));
    const std::vector<double> full = ToyPrefill(space_, memory.layout(), tokens_);
    double most = 0;
    for (size_t i = 0; i < full.size(); ++i) most = std::max(most, std::abs(full[i] - output[i]));
    return most;
  }
  std::string ErrorOf(std::span<const PromptSegment> segments) {
    const ToyMemory memory(space_, static_cast<uint32_t>(tokens_.size()));
    return MessageOf(SegmentSource::Start(*client_, tokens_, segments, memory.layout(), {}).status());
  }

  const KvSpace space_ = ToySpace(kSourceLayers);
  std::shared_ptr<TroubledTransport> transport_;
  std::unique_ptr<Client> client_;
  std::vector<Token> tokens_;
  // Chunks have 8 tokens; the last ones of the second and third segment are short.
  std::vector<PromptSegment> segments_ = {
      {.begin = 0, .tokens = 16}, {.begin = 16, .tokens = 20}, {.begin = 38, .tokens = 19}};
};

BlendSchedule CheckedAt(uint32_t layer, double ratio) { return {.checks = {{.layer = layer, .ratio = ratio}}}; }

TEST_F(SegmentSourceTest, BlendsWhatIsHeld) {
  StoreSegments();
  const Result all = Run(CheckedAt(1, 1.0));
  EXPECT_LT(DistanceToFullPrefill(all.output), 1e-5);
  EXPECT_EQ(all.loaded.chunks, 8u);
  EXPECT_EQ(all.loaded.held, 8u);
  EXPECT_EQ(all.loaded.used, 8u);
  EXPECT_THAT(all.loaded.misses, IsEmpty());
  EXPECT_EQ(all.report.exact_tokens, 16u);
  EXPECT_EQ(all.report.reused_tokens, 39u);
  EXPECT_EQ(all.report.fresh_tokens, 5u);

  const Result some = Run(CheckedAt(1, 0.2));
  EXPECT_THAT(some.report.kept, ElementsAre(39, 8, 8, 8));
  EXPECT_GT(DistanceToFullPrefill(some.output), 1e-5);
  EXPECT_LT(some.loaded.raw_bytes, Run(CheckedAt(0, 0.2)).loaded.raw_bytes)
      << "layers before the check are not fetched";
}

TEST_F(SegmentSourceTest, WhatIsNotHeldIsComputed) {
  const Result nothing = Run(CheckedAt(1, 0.0));
  EXPECT_LT(DistanceToFullPrefill(nothing.output), 1e-5);
  EXPECT_EQ(nothing.loaded.held, 0u);
  EXPECT_EQ(nothing.loaded.misses.size(), 8u);
  EXPECT_EQ(nothing.report.fresh_tokens, 60u);

  StoreSegment(segments_[0]);
  const Result front = Run(CheckedAt(1, 0.0));
  EXPECT_LT(DistanceToFullPrefill(front.output), 1e-5);
  EXPECT_EQ(front.report.exact_tokens, 60u);
  EXPECT_EQ(front.report.fresh_tokens, 44u);
}

TEST_F(SegmentSourceTest, AChunkOfTheFrontThatIsMissingIsComputedAndTheRestIsExact) {
  StoreSegment(segments_[0]);
  const auto chunks = ChunkChain(client_->space_id(), space_.chunk_tokens, std::span(tokens_).first(16)).value();
  ASSERT_TRUE(client_->Delete(std::vector{chunks[0].key}, absl::Seconds(5)).value()[0].ok());
  const Result result = Run(CheckedAt(1, 0.0));
  EXPECT_LT(DistanceToFullPrefill(result.output), 1e-5);
  EXPECT_EQ(result.loaded.used, 1u);
  EXPECT_EQ(result.report.fresh_tokens, 52u);
}

TEST_F(SegmentSourceTest, AChunkThatIsLostOnTheWayIsComputed) {
  StoreSegments();
  const auto of = [&](uint32_t segment, size_t chunk) {
    return ChunkChain(client_->space_id(), space_.chunk_tokens,
                      std::span(tokens_).subspan(segments_[segment].begin, segments_[segment].tokens))
        .value()[chunk]
        .key;
  };
  for (const ChunkKey& key : {of(0, 1), of(1, 0), of(2, 2)}) {
    for (uint32_t slabs = 0; slabs < 2 * kSourceLayers; ++slabs) {
      transport_->lost = key;
      transport_->slabs_before_loss = slabs;
      const Result all = Run(CheckedAt(0, 1.0));
      EXPECT_LT(DistanceToFullPrefill(all.output), 1e-5) << slabs;
      EXPECT_EQ(all.report.missing.size(), 1u);
      ASSERT_EQ(all.loaded.misses.size(), 1u);
      EXPECT_EQ(all.loaded.misses[0].reason, MissReason::kCorrupt);
      EXPECT_EQ(all.loaded.used, 7u);
    }
  }
}

TEST_F(SegmentSourceTest, AStalledLinkEndsWithTheDeadlineAndAllIsComputed) {
  StoreSegments();
  transport_->stalled = true;
  const Result result = Run(CheckedAt(1, 0.0), absl::Milliseconds(30));
  EXPECT_LT(DistanceToFullPrefill(result.output), 1e-5);
  EXPECT_EQ(result.loaded.used, 0u);
  EXPECT_EQ(result.report.fresh_tokens, 60u);
}

TEST_F(SegmentSourceTest, ASourceThatIsDroppedStopsFetching) {
  StoreSegments();
  transport_->stalled = true;
  const ToyMemory memory(space_, static_cast<uint32_t>(tokens_.size()));
  auto source = SegmentSource::Start(*client_, tokens_, segments_, memory.layout(), {.deadline = absl::Minutes(10)});
  ASSERT_TRUE(source.ok());
  source->reset();  // the test's time limit would end it otherwise
}

TEST_F(SegmentSourceTest, TheLastTokenIsComputedEvenWhereItIsHeld) {
  StoreSegments();
  tokens_.resize(57);  // the third segment ends with the prompt
  const Result result = Run(CheckedAt(0, 0.0));
  EXPECT_EQ(result.report.fresh_tokens, 3u) << "the gap of two, and the last one";
  EXPECT_EQ(result.loaded.used, 8u);
}

TEST_F(SegmentSourceTest, WithoutChecksNothingButTheFrontIsFetched) {
  StoreSegments();
  const Result result = Run({});
  EXPECT_LT(DistanceToFullPrefill(result.output), 1e-5);
  EXPECT_EQ(result.loaded.used, 2u);
  EXPECT_EQ(result.report.exact_tokens, 60u);
}

// Tokens of the prompt with others before and after them, stored as one sequence.
TEST_F(SegmentSourceTest, OfAPieceItsPartsOfChunksAreReused) {
  StoreSegment(segments_[0]);
  // The sequence's chunks are [0, 8), …, [40, 48); the piece is its tokens [5, 41). Of the first chunk it has 3 tokens,
  // of the last one 1, which is not worth a fetch.
  std::vector<Token> sequence(48, Token{7});
  std::copy_n(tokens_.begin() + 18, 36, sequence.begin() + 5);
  StoreTokens(sequence);
  segments_ = {segments_[0], {.begin = 18, .tokens = 36, .stored = sequence, .source = 5}};
  const Result all = Run(CheckedAt(1, 1.0));
  EXPECT_LT(DistanceToFullPrefill(all.output), 1e-5);
  EXPECT_EQ(all.loaded.chunks, 2u + 5u);
  EXPECT_EQ(all.loaded.used, 2u + 5u);
  EXPECT_EQ(all.report.exact_tokens, 18u) << "the tokens before the piece are computed from exact ones";
  EXPECT_EQ(all.report.reused_tokens, 35u);
  EXPECT_EQ(all.report.fresh_tokens, 9u);
  EXPECT_THAT(Run(CheckedAt(1, 0.2)).report.kept, ElementsAre(35, 7, 7, 7));
}

TEST_F(SegmentSourceTest, APieceThatStandsEarlierThanItWasStoredIsMovedAndNotCalledExact) {
  std::vector<Token> sequence(24, Token{7});
  sequence.insert(sequence.end(), tokens_.begin(), tokens_.begin() + 16);
  StoreTokens(sequence);
  segments_ = {{.begin = 0, .tokens = 16, .stored = sequence, .source = 24}};
  const Result all = Run(CheckedAt(1, 1.0));
  EXPECT_LT(DistanceToFullPrefill(all.output), 1e-5);
  EXPECT_EQ(all.loaded.used, 2u);
  EXPECT_EQ(all.report.exact_tokens, 0u);
  EXPECT_GT(DistanceToFullPrefill(Run(CheckedAt(1, 0.0)).output), 1e-5) << "as it was computed after other tokens";
}

TEST_F(SegmentSourceTest, APieceThatIsNotWhatItSaysIsRefused) {
  const std::vector<Token> stored(tokens_.begin() + 8, tokens_.begin() + 24);
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 8, .tokens = 16, .stored = stored, .source = 1}}),
              HasSubstr("segment 0: it is tokens [1, 17) of a sequence that has 16"));
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 9, .tokens = 4, .stored = stored}}),
              HasSubstr("segment 0: token 9 of the prompt is "));
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 9, .tokens = 4, .source = 1}}),
              HasSubstr("source is 1, but not what it is a piece of"));
}

TEST_F(SegmentSourceTest, SegmentsThatDoNotFitAreRefused) {
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 0, .tokens = 8}, {.begin = 7, .tokens = 8}}),
              HasSubstr("segment 1: tokens [7, 15) overlap the segment before it, which ends at 8"));
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 53, .tokens = 8}}),
              HasSubstr("segment 0: tokens [53, 61) end beyond the prompt of 60"));
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 5, .tokens = UINT32_MAX}}), HasSubstr("end beyond"));
  EXPECT_THAT(ErrorOf(std::vector<PromptSegment>{{.begin = 5, .tokens = 0}}), HasSubstr("it has no tokens"));
}

}  // namespace
}  // namespace kdn
