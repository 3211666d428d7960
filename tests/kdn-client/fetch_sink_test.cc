// A peer may say anything, in any order: what was not verified is never a hit, and nothing is written outside the
// chunks' places.
#include "kdn-client/fetch_sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "storage/base/status.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kTokens = 2 * kChunkTokens;

class FetchSinkTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const KvView source = KvView::Over(space_, computed_.view(), {}).value();
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(id_, space_, ref, source, **FindCodec(std::string_view(GetParam()))).value());
    }
  }

  // A sink for both chunks, writing into fetched_.
  FetchSink& Sink(FetchSink::Want want = {}) {
    view_.emplace(KvView::Over(space_, fetched_.view(), want.layers).value());
    sink_.emplace(id_, space_, refs_, *view_, want);
    return *sink_;
  }

  bool Announce(size_t chunk) { return sink_->OnChunk(chunk, chunks_[chunk].manifest, TierKind::kMemory); }

  // Announces a chunk whose manifest was changed.
  template <typename Change>
  bool AnnounceChanged(size_t chunk, Change change) {
    auto manifest = std::make_shared<Manifest>(*chunks_[chunk].manifest);
    change(*manifest);
    return sink_->OnChunk(chunk, manifest, TierKind::kMemory);
  }

  void SendSlab(size_t chunk, uint32_t slab, size_t part_bytes = SIZE_MAX) {
    const ByteSpan bytes = chunks_[chunk].slabs[slab];
    for (size_t offset = 0; offset < bytes.size();) {
      const ByteSpan part = bytes.subspan(offset, std::min(part_bytes, bytes.size() - offset));
      sink_->OnPart(chunk, slab, offset, part);
      offset += part.size();
    }
  }

  void SendChunk(size_t chunk, size_t part_bytes = SIZE_MAX) {
    Announce(chunk);
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) SendSlab(chunk, slab, part_bytes);
  }

  std::vector<ChunkOutcome> Finish(const absl::Status& ended = absl::OkStatus()) {
    return std::move(*sink_).Finish(ended);
  }

  // The reasons once the stream has ended well.
  std::vector<MissReason> Outcome(const absl::Status& ended = absl::OkStatus()) {
    std::vector<MissReason> reasons;
    for (const ChunkOutcome& chunk : Finish(ended)) reasons.push_back(chunk.miss.reason);
    return reasons;
  }

  const KvSpace space_ = TinySpace();
  const SpaceId id_ = ComputeSpaceId(space_).value();
  const std::vector<ChunkRef> refs_ = Chain(space_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kTokens);
  EngineMemory fetched_{space_, kTokens};
  std::vector<Chunk> chunks_;
  std::optional<KvView> view_;
  std::optional<FetchSink> sink_;
};

INSTANTIATE_TEST_SUITE_P(Codecs, FetchSinkTest, testing::Values("raw", "zstd"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(FetchSinkTest, TheSizeOfPartsDoesNotMatter) {
  for (const size_t part_bytes : {size_t{1}, size_t{7}, size_t{1000}, SIZE_MAX}) {
    fetched_ = EngineMemory(space_, kTokens);
    Sink();
    SendChunk(0, part_bytes);
    SendChunk(1, part_bytes);
    const std::vector<ChunkOutcome> outcomes = Finish();
    for (const ChunkOutcome& chunk : outcomes) EXPECT_EQ(chunk.miss.reason, MissReason::kNone) << chunk.miss.detail;
    EXPECT_EQ(outcomes[0].raw_bytes, chunks_[0].manifest->RawBytes());
    EXPECT_EQ(outcomes[0].encoded_bytes, chunks_[0].manifest->EncodedBytes());
    EXPECT_TRUE(fetched_ == computed_) << part_bytes;
  }
}

TEST_P(FetchSinkTest, ChunksMayComeLayerByLayer) {
  Sink();
  Announce(1);
  Announce(0);
  for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) {
    SendSlab(0, slab, 100);
    SendSlab(1, slab, 100);
  }
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kNone, MissReason::kNone));
  EXPECT_TRUE(fetched_ == computed_);
}

TEST_P(FetchSinkTest, EveryFlippedBitIsCaught) {
  const std::vector<uint8_t> good(chunks_[0].slabs[0].span().begin(), chunks_[0].slabs[0].span().end());
  for (size_t byte = 0; byte < good.size(); byte += 97) {
    std::vector<uint8_t> bad = good;
    bad[byte] ^= 0x10;
    Sink();
    Announce(0);
    sink_->OnPart(0, 0, 0, ByteSpan(bad).first(bad.size() / 2));
    sink_->OnPart(0, 0, bad.size() / 2, ByteSpan(bad).subspan(bad.size() / 2));
    for (uint32_t slab = 1; slab < chunks_[0].slabs.size(); ++slab) SendSlab(0, slab);
    SendChunk(1);
    EXPECT_THAT(Outcome(), ElementsAre(MissReason::kCorrupt, MissReason::kNone)) << byte;
  }
}

TEST_P(FetchSinkTest, BytesThatMatchTheirChecksumAndDoNotDecodeAreCorrupt) {
  const std::vector<uint8_t> nonsense(100, 0xa5);
  Sink();
  EXPECT_TRUE(AnnounceChanged(0, [&](Manifest& m) {
    m.slabs[0].codec = CodecId::kZstd;
    m.slabs[0].encoded_size = nonsense.size();
    m.slabs[0].checksum = SlabChecksum(nonsense);
  }));
  sink_->OnPart(0, 0, 0, nonsense);
  SendChunk(1);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kCorrupt, MissReason::kNone));
}

TEST_P(FetchSinkTest, ManifestsThatAreNotWhatWasAskedForAreRefused) {
  struct Case {
    const char* what;
    std::function<void(Manifest&)> change;
    MissReason reason;
  };
  const std::vector<Case> cases = {
      {"space", [](Manifest& m) { m.space.bytes[3] ^= 1; }, MissReason::kWrongSpace},
      {"key", [](Manifest& m) { m.key.bytes[3] ^= 1; }, MissReason::kProtocol},
      {"parent", [](Manifest& m) { m.parent.bytes[3] ^= 1; }, MissReason::kGeometry},
      {"first token", [](Manifest& m) { m.first_token += 1; }, MissReason::kGeometry},
      {"tokens", [](Manifest& m) { m.tokens -= 1; }, MissReason::kGeometry},
      {"heads", [](Manifest& m) { m.slabs[0].shape.heads += 1; }, MissReason::kGeometry},
      {"dtype", [](Manifest& m) { m.slabs[0].shape.dtype = DType::kF16; }, MissReason::kGeometry},
      {"slab count", [](Manifest& m) { m.slabs.pop_back(); }, MissReason::kGeometry},
      {"no slabs", [](Manifest& m) { m.slabs.clear(); }, MissReason::kGeometry},
      {"layer", [](Manifest& m) { m.slabs.back().layer += 1; }, MissReason::kGeometry},
      {"fidelity", [](Manifest& m) { m.fidelity = Fidelity::kQuantised; }, MissReason::kFidelity},
      {"codec", [](Manifest& m) { m.slabs[2].codec = static_cast<CodecId>(77); }, MissReason::kUnknownCodec},
      {"empty slab", [](Manifest& m) { m.slabs[2].encoded_size = 0; }, MissReason::kGeometry},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    Sink();
    EXPECT_FALSE(AnnounceChanged(0, c.change));
    for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) SendSlab(0, slab);
    SendChunk(1);
    const std::vector<ChunkOutcome> outcomes = Finish();
    EXPECT_EQ(outcomes[0].miss.reason, c.reason) << outcomes[0].miss.detail;
    EXPECT_FALSE(outcomes[0].miss.detail.empty());
    EXPECT_EQ(outcomes[1].miss.reason, MissReason::kNone);
    EXPECT_TRUE(fetched_.IsZero(0, 0, kChunkTokens));
  }
}

TEST_P(FetchSinkTest, ARawSlabOfAnotherSizeIsNeverWritten) {
  Sink();
  EXPECT_FALSE(AnnounceChanged(0, [](Manifest& m) {
    m.slabs[0].codec = CodecId::kRaw;
    m.slabs[0].encoded_size = m.slabs[0].shape.RawSize() + 1;
  }));
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kGeometry, MissReason::kProtocol));
}

TEST_P(FetchSinkTest, PartsOutOfPlaceEndTheChunkAndNoOther) {
  const ByteSpan slab0 = chunks_[0].slabs[0];
  std::vector<uint8_t> too_long(slab0.begin(), slab0.end());
  too_long.push_back(0);
  struct Case {
    const char* what;
    std::function<void(FetchSink&)> send;
  };
  const std::vector<Case> cases = {
      {"gap at the front", [&](FetchSink& sink) { sink.OnPart(0, 0, 1, slab0.subspan(1)); }},
      {"gap inside",
       [&](FetchSink& sink) {
         sink.OnPart(0, 0, 0, slab0.first(10));
         sink.OnPart(0, 0, 11, slab0.subspan(11));
       }},
      {"overlap",
       [&](FetchSink& sink) {
         sink.OnPart(0, 0, 0, slab0.first(10));
         sink.OnPart(0, 0, 9, slab0.subspan(9));
       }},
      {"too long", [&](FetchSink& sink) { sink.OnPart(0, 0, 0, too_long); }},
      {"too long in two parts",
       [&](FetchSink& sink) {
         sink.OnPart(0, 0, 0, slab0.first(slab0.size() - 1));
         sink.OnPart(0, 0, slab0.size() - 1, ByteSpan(too_long).last(2));
       }},
      {"offset that wraps", [&](FetchSink& sink) { sink.OnPart(0, 0, UINT64_MAX, slab0.first(2)); }},
      {"slab skipped", [&](FetchSink& sink) { sink.OnPart(0, 1, 0, chunks_[0].slabs[1]); }},
      {"slab twice",
       [&](FetchSink& sink) {
         sink.OnPart(0, 0, 0, slab0);
         sink.OnPart(0, 0, 0, slab0);
       }},
      {"slab number out of range", [&](FetchSink& sink) { sink.OnPart(0, UINT32_MAX, 0, slab0); }},
      {"another slab before the end",
       [&](FetchSink& sink) {
         sink.OnPart(0, 0, 0, slab0.first(10));
         sink.OnPart(0, 1, 0, chunks_[0].slabs[1]);
       }},
      {"another chunk before the end of the slab", [&](FetchSink& sink) { sink.OnPart(0, 0, 0, slab0.first(10)); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    Sink();
    Announce(0);
    c.send(*sink_);
    SendChunk(1);
    for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) SendSlab(0, slab);  // too late to be believed
    EXPECT_THAT(Outcome(), ElementsAre(MissReason::kProtocol, MissReason::kNone));
    EXPECT_EQ(fetched_.Rows(0, kChunkTokens, kChunkTokens), computed_.Rows(0, kChunkTokens, kChunkTokens));
  }
}

TEST_P(FetchSinkTest, AChunkAnnouncedTwiceIsRefused) {
  Sink();
  EXPECT_TRUE(Announce(0));
  SendSlab(0, 0);
  EXPECT_FALSE(Announce(0));
  for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) SendSlab(0, slab);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kProtocol, MissReason::kProtocol));
}

TEST_P(FetchSinkTest, WhatIsWholeStaysAHitWhateverComesAfterIt) {
  Sink();
  SendChunk(0);
  EXPECT_FALSE(Announce(0));
  sink_->OnPart(0, 0, 0, std::vector<uint8_t>(chunks_[0].slabs[0].size(), 0xff));
  sink_->OnMiss(0, {MissReason::kCorrupt, "too late"});
  EXPECT_THAT(Outcome(Unavailable("gone")), ElementsAre(MissReason::kNone, MissReason::kUnreachable));
  EXPECT_EQ(fetched_.Rows(0, 0, kChunkTokens), computed_.Rows(0, 0, kChunkTokens));
}

TEST_P(FetchSinkTest, TheEndOfTheStreamDecidesWhatIsNotWhole) {
  const std::vector<std::pair<absl::Status, MissReason>> ends = {
      {absl::OkStatus(), MissReason::kProtocol},         {Unavailable("gone"), MissReason::kUnreachable},
      {DeadlineExceeded("late"), MissReason::kDeadline}, {Cancelled("enough"), MissReason::kCancelled},
      {ResourceExhausted("busy"), MissReason::kRefused}, {Unimplemented("no such method"), MissReason::kProtocol},
      {Internal("oh"), MissReason::kInternal},
  };
  for (const auto& [status, reason] : ends) {
    Sink();
    Announce(0);
    SendSlab(0, 0);
    sink_->OnPart(0, 1, 0, ByteSpan(chunks_[0].slabs[1]).first(5));
    const std::vector<ChunkOutcome> outcomes = Finish(status);
    EXPECT_EQ(outcomes[0].miss.reason, reason) << status;
    EXPECT_EQ(outcomes[1].miss.reason, reason) << status;
    EXPECT_THAT(outcomes[0].miss.detail, HasSubstr(MessageOf(status)));
  }
}

TEST_P(FetchSinkTest, AChunkTakenBackMidwayIsAMissForTheReasonGiven) {
  Sink();
  Announce(0);
  SendSlab(0, 0);
  sink_->OnPart(0, 1, 0, ByteSpan(chunks_[0].slabs[1]).first(5));
  sink_->OnMiss(0, {MissReason::kCorrupt, "the disk lied"});
  SendChunk(1);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kCorrupt, MissReason::kNone));
}

TEST_P(FetchSinkTest, AMissWithoutAReasonIsAMiss) {
  Sink();
  sink_->OnMiss(0, {});
  SendChunk(1);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kProtocol, MissReason::kNone));
}

TEST_P(FetchSinkTest, ChunksThatWereNotAskedForAreIgnored) {
  Sink();
  EXPECT_FALSE(sink_->OnChunk(2, chunks_[0].manifest, TierKind::kMemory));
  sink_->OnPart(2, 0, 0, chunks_[0].slabs[0]);
  sink_->OnPart(1, 0, 0, chunks_[1].slabs[0]);  // not announced
  sink_->OnMiss(SIZE_MAX, {MissReason::kNotFound, ""});
  SendChunk(0);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kNone, MissReason::kProtocol));
}

TEST_P(FetchSinkTest, OnlySlabsOfTheLayersAskedForAreTaken) {
  Sink({.layers = {.begin = 1, .end = 2}});
  Announce(0);
  SendSlab(0, 2);
  SendSlab(0, 3);
  Announce(1);
  SendSlab(1, 0);  // of layer 0
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kNone, MissReason::kProtocol));
  EXPECT_TRUE(fetched_.IsZero(0, 0, kTokens));
  EXPECT_EQ(fetched_.Rows(1, 0, kChunkTokens), computed_.Rows(1, 0, kChunkTokens));
}

}  // namespace
}  // namespace kdn
