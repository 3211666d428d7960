// A peer may say anything: in pages as in contiguous memory, what was not verified is never a hit, and nothing is
// written outside the places of the chunks that were asked for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "kdn-client/fetch_sink.h"
#include "storage/delivery_recode.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-client/kv_memory.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;

constexpr uint32_t kTokens = 2 * kChunkTokens;

// Memory that raw slabs are streamed into (by tokens, by heads), decoded into, and converted into.
struct Case {
  const char* codec;
  MemoryKind kind;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* codec : {"raw", "zstd"}) {
    for (const BlockOrder block : {BlockOrder::kNhd, BlockOrder::kHnd}) {
      for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
        for (const HeadRange& heads : {HeadRange(), HeadRange{.begin = 1, .end = 3}}) {
          cases.push_back(
              {codec, {.paged = true, .block_order = block, .block_tokens = 3, .dtype = dtype, .heads = heads}});
        }
      }
    }
  }
  return cases;
}

class PagedSinkTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    computed_.FillWithNoise(space_, 1);
    const KvView source = KvView::Over(space_, computed_.layout(), {}).value();
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(id_, space_, ref, source, **FindCodec(std::string_view(GetParam().codec))).value());
    }
  }

  static KvSpace Space() {
    KvSpace space = TinySpace();
    space.layers = {{.count = 2, .kv_heads = 4, .k_dim = 5, .v_dim = 3, .rope = {}}};
    return space;
  }

  // A sink for both chunks into fetched_, anew.
  FetchSink& Sink() {
    fetched_ = KvMemory(space_, GetParam().kind, kTokens);
    view_.emplace(KvView::Over(space_, fetched_.layout(), {}).value());
    return sink_.emplace(id_, space_, refs_, *view_, FetchSink::Want());
  }

  void Send(size_t chunk, uint32_t slab, ByteSpan bytes, size_t part_bytes = SIZE_MAX) {
    for (size_t offset = 0; offset < bytes.size();) {
      const ByteSpan part = bytes.subspan(offset, std::min(part_bytes, bytes.size() - offset));
      sink_->OnPart(chunk, slab, offset, part);
      offset += part.size();
    }
  }

  void SendChunk(size_t chunk, size_t part_bytes = SIZE_MAX) {
    sink_->OnChunk(chunk, chunks_[chunk].manifest, TierKind::kMemory);
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) {
      Send(chunk, slab, chunks_[chunk].slabs[slab], part_bytes);
    }
  }

  std::vector<MissReason> Outcome() {
    std::vector<MissReason> reasons;
    for (const ChunkOutcome& chunk : std::move(*sink_).Finish(absl::OkStatus())) reasons.push_back(chunk.miss.reason);
    return reasons;
  }

  // The memory as it must be with the second chunk alone in place: the first one's tokens are taken from `fetched_`.
  KvMemory WithSecondChunkOnly() {
    KvMemory expected(space_, GetParam().kind, kTokens);
    expected.CopyFrom(space_, fetched_, 0, kChunkTokens);
    expected.CopyFrom(space_, computed_, kChunkTokens, kTokens);
    return expected;
  }

  const KvSpace space_ = Space();
  const SpaceId id_ = ComputeSpaceId(space_).value();
  const std::vector<ChunkRef> refs_ = Chain(space_, kTokens);
  KvMemory computed_{space_, {}, kTokens};
  KvMemory fetched_{space_, GetParam().kind, kTokens};
  std::vector<Chunk> chunks_;
  std::optional<KvView> view_;
  std::optional<FetchSink> sink_;
};

INSTANTIATE_TEST_SUITE_P(All, PagedSinkTest, testing::ValuesIn(Cases()));

TEST_P(PagedSinkTest, TheSizeOfPartsDoesNotMatter) {
  for (const size_t part_bytes : {size_t{1}, size_t{7}, size_t{1000}, SIZE_MAX}) {
    Sink();
    KvMemory expected = fetched_;
    expected.CopyFrom(space_, computed_, 0, kTokens);
    SendChunk(0, part_bytes);
    SendChunk(1, part_bytes);
    EXPECT_THAT(Outcome(), ElementsAre(MissReason::kNone, MissReason::kNone));
    EXPECT_TRUE(fetched_ == expected) << part_bytes;
  }
}

// The chunks as a node sends them that cuts out the heads that the memory holds.
TEST_P(PagedSinkTest, OfChunksThatWereCutTheSizeOfPartsDoesNotMatterEither) {
  const DeliveryRecoder recoder(*FindCodec(std::string_view(GetParam().codec)), Fidelity::kExact,
                                GetParam().kind.heads);
  for (Chunk& chunk : chunks_) {
    FetchedChunk fetched{.miss = {}, .manifest = chunk.manifest, .tier = TierKind::kMemory, .slabs = {}};
    for (uint32_t i = 0; i < chunk.slabs.size(); ++i) fetched.slabs.push_back({i, chunk.slabs[i]});
    recoder.Recode(fetched);
    chunk.manifest = fetched.manifest;
    for (const SlabBytes& slab : fetched.slabs) chunk.slabs[slab.index] = slab.bytes;
    const bool cuts = GetParam().kind.heads != HeadRange();
    EXPECT_EQ(chunk.manifest->slabs[0].shape.heads, cuts ? 2u : 4u);
  }
  for (const size_t part_bytes : {size_t{1}, size_t{7}, size_t{1000}, SIZE_MAX}) {
    Sink();
    KvMemory expected = fetched_;
    expected.CopyFrom(space_, computed_, 0, kTokens);
    SendChunk(0, part_bytes);
    SendChunk(1, part_bytes);
    EXPECT_THAT(Outcome(), ElementsAre(MissReason::kNone, MissReason::kNone));
    EXPECT_TRUE(fetched_ == expected) << part_bytes;
  }
}

TEST_P(PagedSinkTest, AllHeadsOrThoseAskedForAreTakenAndNoOtherNumber) {
  const bool cuts = GetParam().kind.heads != HeadRange();  // to two heads of four
  for (uint32_t heads = 1; heads <= 5; ++heads) {
    for (const uint32_t changed : {0u, 1u, 3u}) {
      SCOPED_TRACE(heads);
      Sink();
      auto manifest = std::make_shared<Manifest>(*chunks_[0].manifest);
      SlabInfo& slab = manifest->slabs[changed];
      slab.shape.heads = heads;
      if (slab.codec == CodecId::kRaw) slab.encoded_size = slab.shape.RawSize();
      const bool taken = heads == 4 || (cuts && heads == 2);
      EXPECT_EQ(sink_->OnChunk(0, manifest, TierKind::kMemory), taken);
      const MissReason left = taken ? MissReason::kProtocol : MissReason::kGeometry;
      EXPECT_THAT(Outcome(), ElementsAre(left, MissReason::kProtocol));
    }
  }
}

TEST_P(PagedSinkTest, LayersThatWereNotAskedForAreNeverCut) {
  fetched_ = KvMemory(space_, GetParam().kind, kTokens);
  view_.emplace(KvView::Over(space_, fetched_.layout(), {.begin = 1}).value());
  sink_.emplace(id_, space_, refs_, *view_, FetchSink::Want{.layers = {.begin = 1}});
  auto manifest = std::make_shared<Manifest>(*chunks_[0].manifest);
  manifest->slabs[0].shape.heads = 2;
  EXPECT_FALSE(sink_->OnChunk(0, manifest, TierKind::kMemory));
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kGeometry, MissReason::kProtocol));
}

TEST_P(PagedSinkTest, ACorruptedSlabIsAMissAndOthersAreNotTouched) {
  const std::vector<uint8_t> good(chunks_[0].slabs[1].span().begin(), chunks_[0].slabs[1].span().end());
  for (size_t byte = 0; byte < good.size(); byte += 29) {
    std::vector<uint8_t> bad = good;
    bad[byte] ^= 0x10;
    Sink();
    sink_->OnChunk(0, chunks_[0].manifest, TierKind::kMemory);
    Send(0, 0, chunks_[0].slabs[0]);
    Send(0, 1, bad, 100);
    Send(0, 2, chunks_[0].slabs[2]);
    SendChunk(1);
    EXPECT_THAT(Outcome(), ElementsAre(MissReason::kCorrupt, MissReason::kNone)) << byte;
    EXPECT_TRUE(fetched_ == WithSecondChunkOnly()) << byte;
  }
}

TEST_P(PagedSinkTest, GeometryThatIsNotTheSpacesIsNeverWritten) {
  const auto announce = [&](auto change) {
    auto manifest = std::make_shared<Manifest>(*chunks_[0].manifest);
    change(manifest->slabs[0]);
    return sink_->OnChunk(0, manifest, TierKind::kMemory);
  };
  const std::vector<void (*)(SlabInfo&)> changes = {
      [](SlabInfo& slab) { slab.shape.tokens = 4000; },
      [](SlabInfo& slab) { slab.shape.heads = 4000; },
      [](SlabInfo& slab) { slab.shape.dim = 4000; },
      [](SlabInfo& slab) { slab.shape.dtype = DType::kF32; },
      [](SlabInfo& slab) { slab.layer = UINT32_MAX; },
      [](SlabInfo& slab) { slab.kind = SlabKind::kLatent; },
      [](SlabInfo& slab) {
        slab.codec = CodecId::kRaw;
        slab.encoded_size = slab.shape.RawSize() + 1;
      },
  };
  for (const auto& change : changes) {
    Sink();
    KvMemory expected = fetched_;
    EXPECT_FALSE(announce(change));
    Send(0, 0, std::vector<uint8_t>(100000));
    SendChunk(1);
    EXPECT_THAT(Outcome(), ElementsAre(MissReason::kGeometry, MissReason::kNone));
    expected.CopyFrom(space_, computed_, kChunkTokens, kTokens);
    EXPECT_TRUE(fetched_ == expected);
  }
}

TEST_P(PagedSinkTest, BytesBeyondASlabAreNeverWritten) {
  Sink();
  sink_->OnChunk(0, chunks_[0].manifest, TierKind::kMemory);
  const ByteSpan slab = chunks_[0].slabs[0];
  std::vector<uint8_t> too_long(slab.begin(), slab.end());
  too_long.resize(too_long.size() + 5000, 0xFF);
  Send(0, 0, ByteSpan(too_long).first(slab.size() - 1));
  sink_->OnPart(0, 0, slab.size() - 1, ByteSpan(too_long).subspan(slab.size() - 1));
  SendChunk(1);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kProtocol, MissReason::kNone));
  EXPECT_TRUE(fetched_ == WithSecondChunkOnly());
}

}  // namespace
}  // namespace kdn
