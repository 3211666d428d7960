#include "integration/engine/kdn_session.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/engine/engine_report.h"
#include "storage/base/status.h"
#include "storage/tiered_store.h"
#include "tests/integration/engine/fixtures.h"
#include "tests/kdn-client/forwarding_transport.h"

namespace kdn::engine {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kSessionChunk = 32;

// Passes everything on, but harms what is fetched of one chunk.
class HarmfulTransport final : public ForwardingTransport {
 public:
  enum class Harm { kNone, kFlipBit, kMissing, kBreakStream };

  using ForwardingTransport::ForwardingTransport;

  void Do(Harm harm, size_t chunk) {
    harm_ = harm;
    chunk_ = chunk;
  }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    Sink harmful(*this, sink);
    KDN_RETURN_IF_ERROR(ForwardingTransport::Fetch(query, deadline, harmful));
    if (harm_ == Harm::kBreakStream) return Unavailable("the node went away");
    return absl::OkStatus();
  }

 private:
  class Sink final : public SlabSink {
   public:
    Sink(const HarmfulTransport& harm, SlabSink& next) : harm_(harm), next_(next) {}
    bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
      if (chunk == harm_.chunk_ && harm_.harm_ == Harm::kMissing) {
        next_.OnMiss(chunk, {MissReason::kNotFound, "gone"});
        return false;
      }
      return next_.OnChunk(chunk, manifest, tier);
    }
    void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
      if (chunk == harm_.chunk_ && harm_.harm_ == Harm::kFlipBit && slab == 1 && offset == 0) {
        std::vector<uint8_t> copy(part.begin(), part.end());
        copy[copy.size() / 2] ^= 1;
        return next_.OnPart(chunk, slab, offset, copy);
      }
      if (chunk >= harm_.chunk_ && (harm_.harm_ == Harm::kBreakStream || harm_.harm_ == Harm::kMissing)) {
        if (harm_.harm_ == Harm::kBreakStream || chunk == harm_.chunk_) return;
      }
      next_.OnPart(chunk, slab, offset, part);
    }
    void OnMiss(size_t chunk, const Miss& miss) override { next_.OnMiss(chunk, miss); }

   private:
    const HarmfulTransport& harm_;
    SlabSink& next_;
  };

  Harm harm_ = Harm::kNone;
  size_t chunk_ = 0;
};

struct Outcome {
  PromptReport report;
  std::string bits;  // of the first logits and of some decoded steps
};

class KdnSessionTest : public testing::Test {
 protected:
  void SetUp() override {
    TieredStoreOptions options;
    options.memory_bytes = 64 << 20;
    absl::StatusOr<std::unique_ptr<TieredStore>> store = TieredStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.status();
    transport_ = std::make_shared<HarmfulTransport>(MakeEmbeddedTransport(*std::move(store)));
  }

  std::unique_ptr<Client> NewClient(std::shared_ptr<Transport> transport) {
    absl::StatusOr<std::unique_ptr<Client>> client =
        Client::Create(SpaceOf(*model_, session_options_), std::move(transport));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  Outcome Run(std::span<const Token> prompt, Client* client, std::optional<Ack> store = std::nullopt) {
    session_options_.capacity = static_cast<uint32_t>(prompt.size()) + 8;
    const auto session = NewSession(model_, session_options_);
    absl::StatusOr<PromptReport> report = RunPrompt(*session, client, prompt, {.store = store});
    EXPECT_TRUE(report.ok()) << report.status();
    Outcome outcome{.report = *std::move(report), .bits = {}};
    for (int step = 0; step < 3; ++step) {
      outcome.bits.append(reinterpret_cast<const char*>(session->logits().data()), session->logits().size_bytes());
      EXPECT_TRUE(session->Append({session->Greedy()}).ok());
    }
    return outcome;
  }

  std::shared_ptr<const Model> model_ = SmallModel();
  SessionOptions session_options_{.kv_dtype = DType::kBf16, .chunk_tokens = kSessionChunk};
  std::shared_ptr<HarmfulTransport> transport_;
};

TEST_F(KdnSessionTest, FetchedPrefixGivesTheSameBitsAsAComputedOne) {
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    session_options_.kv_dtype = dtype;
    const std::vector<Token> prompt = SomeTokens(4 * kSessionChunk + 5);
    const Outcome cold = Run(prompt, nullptr);
    const Outcome storing = Run(prompt, NewClient(transport_).get(), Ack::kMemory);
    EXPECT_EQ(storing.report.chunks_stored, 4u);
    EXPECT_THAT(storing.report.store_failures, IsEmpty());
    const Outcome fetching = Run(prompt, NewClient(transport_).get());
    EXPECT_EQ(fetching.report.reused_tokens, 4 * kSessionChunk);
    EXPECT_EQ(fetching.report.computed_tokens, 5u);
    EXPECT_THAT(fetching.report.tiers, Each(TierKind::kMemory));
    EXPECT_EQ(fetching.report.raw_bytes_fetched, 4 * kSessionChunk * 2 * 2 * 32 * DTypeSize(dtype));
    EXPECT_THAT(fetching.report.misses, IsEmpty());
    EXPECT_EQ(storing.bits, cold.bits);
    EXPECT_EQ(fetching.bits, cold.bits);
  }
}

TEST_F(KdnSessionTest, TheLastTokenIsComputedEvenWhenEveryChunkIsHeld) {
  const std::vector<Token> prompt = SomeTokens(3 * kSessionChunk);
  const auto client = NewClient(transport_);
  const Outcome storing = Run(prompt, client.get(), Ack::kMemory);
  EXPECT_EQ(storing.report.chunks_stored, 3u);
  const Outcome fetching = Run(prompt, client.get(), Ack::kMemory);
  EXPECT_EQ(fetching.report.chunks_found, 3u);
  EXPECT_EQ(fetching.report.reused_tokens, 2 * kSessionChunk);
  EXPECT_EQ(fetching.report.chunks_stored, 0u) << "nothing was missing";
  EXPECT_EQ(fetching.bits, storing.bits);
}

TEST_F(KdnSessionTest, APromptShorterThanAChunkIsComputed) {
  const std::vector<Token> prompt = SomeTokens(kSessionChunk - 1);
  const Outcome outcome = Run(prompt, NewClient(transport_).get(), Ack::kMemory);
  EXPECT_EQ(outcome.report.computed_tokens, kSessionChunk - 1);
  EXPECT_EQ(outcome.report.chunks_stored, 0u);
  EXPECT_EQ(outcome.bits, Run(prompt, nullptr).bits);
}

TEST_F(KdnSessionTest, APromptThatPartsWaysReusesWhatItShares) {
  std::vector<Token> prompt = SomeTokens(5 * kSessionChunk);
  const auto client = NewClient(transport_);
  Run(prompt, client.get(), Ack::kMemory);
  prompt[2 * kSessionChunk + 3] ^= 1;
  const Outcome other = Run(prompt, client.get(), Ack::kMemory);
  EXPECT_EQ(other.report.reused_tokens, 2 * kSessionChunk);
  EXPECT_EQ(other.report.chunks_stored, 3u);
  EXPECT_EQ(other.bits, Run(prompt, nullptr).bits);
}

// Whatever goes wrong with chunk i, chunks 0 to i-1 are used, the rest is computed, and the answer is the same.
TEST_F(KdnSessionTest, AChunkThatDoesNotComeIsComputedAndStoredAgain) {
  using Harm = HarmfulTransport::Harm;
  const std::vector<Token> prompt = SomeTokens(5 * kSessionChunk + 1);
  const auto client = NewClient(transport_);
  const Outcome cold = Run(prompt, client.get(), Ack::kMemory);
  const std::pair<Harm, MissReason> harms[] = {{Harm::kFlipBit, MissReason::kCorrupt},
                                               {Harm::kMissing, MissReason::kNotFound},
                                               {Harm::kBreakStream, MissReason::kUnreachable}};
  for (const auto& [harm, reason] : harms) {
    for (const size_t chunk : {0u, 2u, 4u}) {
      transport_->Do(harm, chunk);
      const Outcome outcome = Run(prompt, client.get(), Ack::kMemory);
      EXPECT_EQ(outcome.report.reused_tokens, chunk * kSessionChunk) << MissReasonName(reason);
      ASSERT_FALSE(outcome.report.misses.empty());
      EXPECT_EQ(outcome.report.misses[0].reason, reason) << outcome.report.misses[0].detail;
      EXPECT_EQ(outcome.report.chunks_stored, 5 - chunk);
      EXPECT_EQ(outcome.bits, cold.bits) << MissReasonName(reason) << " of chunk " << chunk;
    }
  }
}

TEST_F(KdnSessionTest, AHoleInTheMiddleIsFilled) {
  const std::vector<Token> prompt = SomeTokens(4 * kSessionChunk + 1);
  const auto client = NewClient(transport_);
  Run(prompt, client.get(), Ack::kMemory);
  const PrefixHit held = client->LookupPrefix(prompt, {});
  ASSERT_TRUE(client->Delete(std::vector<ChunkKey>{held.chunks[1].key}, absl::Seconds(1)).ok());
  EXPECT_EQ(Run(prompt, client.get(), Ack::kMemory).report.reused_tokens, kSessionChunk);
  EXPECT_EQ(Run(prompt, client.get()).report.reused_tokens, 4 * kSessionChunk);
}

TEST_F(KdnSessionTest, ANodeThatIsAwayCostsNothingButItsMiss) {
  const std::vector<Token> prompt = SomeTokens(3 * kSessionChunk);
  const auto client = NewClient(MakeRemoteTransport("127.0.0.1:1"));
  const Outcome outcome = Run(prompt, client.get(), Ack::kMemory);
  EXPECT_EQ(outcome.report.reused_tokens, 0u);
  ASSERT_EQ(outcome.report.misses.size(), 1u);
  EXPECT_EQ(outcome.report.misses[0].reason, MissReason::kUnreachable) << outcome.report.misses[0].detail;
  EXPECT_EQ(outcome.report.store_failures.size(), 3u);
  EXPECT_EQ(outcome.bits, Run(prompt, nullptr).bits);
}

TEST_F(KdnSessionTest, KvNeverCrossesModelsDTypesOrChunkSizes) {
  const std::vector<Token> prompt = SomeTokens(4 * kSessionChunk + 1);
  Run(prompt, NewClient(transport_).get(), Ack::kMemory);
  const auto found = [&] { return Run(prompt, NewClient(transport_).get()).report.chunks_found; };
  EXPECT_EQ(found(), 4u);
  session_options_.kv_dtype = DType::kF16;
  EXPECT_EQ(found(), 0u);
  session_options_.kv_dtype = DType::kBf16;
  session_options_.chunk_tokens = 2 * kSessionChunk;
  EXPECT_EQ(found(), 0u);
  session_options_.chunk_tokens = kSessionChunk;
  for (const char* difference : {"seed=8", "seed=7,theta=20000", "seed=7,rope_factor=2"}) {
    model_ = SmallModel(std::string("layers=2,hidden=64,heads=4,kv_heads=2,intermediate=96,vocab=260,") + difference);
    EXPECT_EQ(found(), 0u) << difference;
  }
}

TEST_F(KdnSessionTest, RefusesASessionThatHasBegun) {
  session_options_.capacity = 8;
  const auto session = NewSession(model_, session_options_);
  ASSERT_TRUE(session->Append({1}).ok());
  EXPECT_EQ(RunPrompt(*session, nullptr, SomeTokens(2), {}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(RunPrompt(*session, nullptr, {}, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RunPrompt(*session, nullptr, SomeTokens(9), {}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(KdnSessionTest, PrefillKvIsWhatASessionComputes) {
  const std::vector<Token> tokens = SomeTokens(300);
  const auto session = NewSession(model_, {.kv_dtype = DType::kF16, .capacity = 300});
  ASSERT_TRUE(session->Append(tokens).ok());
  const absl::StatusOr<KvCache> kv = PrefillKv(model_, tokens, DType::kF16);
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_EQ(KvBytes(*kv, 300), KvBytes(session->kv(), 300));
}

TEST(EngineReportTest, NamesTheTierOnlyWhereItIsOne) {
  EngineReport report;
  EXPECT_EQ(ToJson(report)["tier"], "none");
  report.prompt.tiers = {TierKind::kDisk, TierKind::kDisk};
  EXPECT_EQ(ToJson(report)["tier"], "disk");
  report.prompt.tiers.push_back(TierKind::kMemory);
  EXPECT_EQ(ToJson(report)["tier"], "mixed");
  report.prompt.misses = {{MissReason::kCorrupt, "bad sum"}, {MissReason::kCorrupt, "bad sum"}};
  EXPECT_EQ(ToJson(report)["miss_reasons"]["corrupt"], 2);
  EXPECT_THAT(ToText(report), HasSubstr("bad sum"));
}

}  // namespace
}  // namespace kdn::engine
