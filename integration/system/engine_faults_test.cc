// Whatever goes wrong between engine and cache, the engine's logits are those that it would have computed alone, and
// the report says why.

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "integration/engine/kdn_session.h"
#include "integration/engine/tokenizer.h"
#include "integration/system/node_fixture.h"
#include "integration/system/tiny_engine.h"
#include "tests/kdn-client/forwarding_transport.h"

namespace kdn {
namespace {

using engine::PromptOptions;

constexpr uint32_t kChunk = TinyEngine::kChunk;
constexpr uint32_t kPromptTokens = 6 * kChunk + 5;
constexpr size_t kFaultyChunk = 2;  // chunks before it arrive

// Stands between a transport and the client's sink, and may change what passes.
class Fault : public SlabSink {
 public:
  explicit Fault(SlabSink& sink) : sink_(sink) {}
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    return sink_.OnChunk(chunk, manifest, tier);
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
    sink_.OnPart(chunk, slab, offset, part);
  }
  void OnMiss(size_t chunk, const Miss& miss) override { sink_.OnMiss(chunk, miss); }

 protected:
  SlabSink& sink_;
};

// Announces the faulty chunk by a manifest that `change` has been at.
class ChangedManifest final : public Fault {
 public:
  ChangedManifest(SlabSink& sink, std::function<void(Manifest&)> change) : Fault(sink), change_(std::move(change)) {}
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    if (chunk != kFaultyChunk) return Fault::OnChunk(chunk, manifest, tier);
    auto changed = std::make_shared<Manifest>(*manifest);
    change_(*changed);
    return Fault::OnChunk(chunk, changed, tier);
  }

 private:
  const std::function<void(Manifest&)> change_;
};

// Gives the faulty chunk's last slab's bytes to `change` before they pass.
class ChangedBytes final : public Fault {
 public:
  ChangedBytes(SlabSink& sink, std::function<void(std::vector<uint8_t>&)> change)
      : Fault(sink), change_(std::move(change)) {}
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    if (chunk == kFaultyChunk) last_slab_ = static_cast<uint32_t>(manifest->slabs.size()) - 1;
    return Fault::OnChunk(chunk, manifest, tier);
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
    if (chunk != kFaultyChunk || slab != last_slab_) return Fault::OnPart(chunk, slab, offset, part);
    std::vector<uint8_t> bytes(part.begin(), part.end());
    change_(bytes);
    Fault::OnPart(chunk, slab, offset, bytes);
  }

 private:
  const std::function<void(std::vector<uint8_t>&)> change_;
  uint32_t last_slab_ = 0;
};

// Lets nothing through once the faulty chunk has begun.
class CutOff final : public Fault {
 public:
  using Fault::Fault;
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    if (chunk > kFaultyChunk) return false;
    return Fault::OnChunk(chunk, manifest, tier);
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
    if (chunk < kFaultyChunk || (chunk == kFaultyChunk && slab == 0)) Fault::OnPart(chunk, slab, offset, part);
  }
};

struct FaultCase {
  std::string name;
  MissReason reason;
  // Fetches through `fetch`, with the fault in between.
  std::function<absl::Status(SlabSink& sink, const std::function<absl::Status(SlabSink&)>& fetch)> run;
};

FaultCase WithManifest(std::string name, MissReason reason, std::function<void(Manifest&)> change) {
  return {std::move(name), reason, [change](SlabSink& sink, const auto& fetch) {
            ChangedManifest fault(sink, change);
            return fetch(fault);
          }};
}

FaultCase WithBytes(std::string name, MissReason reason, std::function<void(std::vector<uint8_t>&)> change) {
  return {std::move(name), reason, [change](SlabSink& sink, const auto& fetch) {
            ChangedBytes fault(sink, change);
            return fetch(fault);
          }};
}

FaultCase WithCut(std::string name, MissReason reason, absl::Status end) {
  return {std::move(name), reason, [end](SlabSink& sink, const auto& fetch) {
            CutOff fault(sink);
            const absl::Status fetched = fetch(fault);
            return end.ok() ? fetched : end;
          }};
}

std::vector<FaultCase> FaultCases() {
  return {
      WithManifest("WrongGeometry", MissReason::kGeometry, [](Manifest& m) { m.slabs.front().shape.heads *= 2; }),
      WithManifest("MissingLayer", MissReason::kGeometry, [](Manifest& m) { m.slabs.pop_back(); }),
      WithManifest("WrongSpace", MissReason::kWrongSpace, [](Manifest& m) { m.space.bytes[0] ^= 1; }),
      WithManifest("WrongKey", MissReason::kProtocol, [](Manifest& m) { m.key.bytes[31] ^= 1; }),
      WithManifest("WrongPosition", MissReason::kGeometry, [](Manifest& m) { m.first_token += 1; }),
      WithManifest("LessExact", MissReason::kFidelity, [](Manifest& m) { m.fidelity = Fidelity::kApproximate; }),
      WithManifest("UnknownCodec", MissReason::kUnknownCodec,
                   [](Manifest& m) { m.slabs.front().codec = static_cast<CodecId>(250); }),
      WithBytes("FlippedBit", MissReason::kCorrupt, [](std::vector<uint8_t>& bytes) { bytes.back() ^= 1; }),
      WithBytes("ShortSlab", MissReason::kProtocol, [](std::vector<uint8_t>& bytes) { bytes.pop_back(); }),
      WithBytes("OverlongSlab", MissReason::kProtocol, [](std::vector<uint8_t>& bytes) { bytes.resize(1 << 20); }),
      WithCut("StreamEndsEarly", MissReason::kProtocol, absl::OkStatus()),
      WithCut("NodeGone", MissReason::kUnreachable, absl::UnavailableError("connection reset")),
      WithCut("OutOfTime", MissReason::kDeadline, absl::DeadlineExceededError("deadline")),
      WithCut("Overloaded", MissReason::kRefused, absl::ResourceExhaustedError("try later")),
  };
}

// A transport to a store in this process whose fetches suffer a fault.
class FaultyTransport final : public ForwardingTransport {
 public:
  FaultyTransport(std::shared_ptr<Transport> base, FaultCase fault)
      : ForwardingTransport(std::move(base)), fault_(std::move(fault)) {}

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    return fault_.run(sink, [&](SlabSink& between) { return ForwardingTransport::Fetch(query, deadline, between); });
  }

 private:
  const FaultCase fault_;
};

std::shared_ptr<Transport> NewStore(uint64_t memory_bytes = uint64_t{64} << 20) {
  TieredStoreOptions options;
  options.memory_bytes = memory_bytes;
  auto store = TieredStore::Open(options);
  EXPECT_TRUE(store.ok()) << store.status();
  return MakeEmbeddedTransport(std::shared_ptr<TieredStore>(*std::move(store)));
}

class EngineFaultTest : public testing::TestWithParam<FaultCase> {};

TEST_P(EngineFaultTest, TheEngineComputesWhatDidNotComeAndGivesTheSameAnswer) {
  const TinyEngine engine(kPromptTokens);
  const std::shared_ptr<Transport> store = NewStore();
  const auto alone = engine.Run(nullptr, {});
  const auto storing = engine.Run(engine.NewClient(store).get(), {.store = Ack::kMemory});
  ASSERT_EQ(storing.report.chunks_stored, 6u);
  ASSERT_TRUE(SameBits(storing.logits, alone.logits));

  const auto faulty = engine.NewClient(std::make_shared<FaultyTransport>(store, GetParam()));
  const auto answer = engine.Run(faulty.get(), {});
  EXPECT_EQ(answer.report.reused_tokens, kFaultyChunk * kChunk);
  ASSERT_FALSE(answer.report.misses.empty());
  EXPECT_EQ(answer.report.misses.front().reason, GetParam().reason)
      << MissReasonName(answer.report.misses.front().reason) << ": " << answer.report.misses.front().detail;
  EXPECT_FALSE(answer.report.misses.front().detail.empty());
  EXPECT_TRUE(SameBits(answer.logits, alone.logits));
}

INSTANTIATE_TEST_SUITE_P(Faults, EngineFaultTest, testing::ValuesIn(FaultCases()),
                         [](const auto& fault) { return fault.param.name; });

TEST(EngineFaults, FetchedAnswerIsTheComputedOneBitForBit) {
  const TinyEngine engine(kPromptTokens);
  const std::shared_ptr<Transport> store = NewStore();
  const auto alone = engine.Run(nullptr, {});
  engine.Run(engine.NewClient(store).get(), {.store = Ack::kMemory});
  const auto fetched = engine.Run(engine.NewClient(store).get(), {});
  EXPECT_EQ(fetched.report.reused_tokens, 6 * kChunk);
  EXPECT_TRUE(SameBits(fetched.logits, alone.logits));
}

TEST(EngineFaults, FullBudgetRefusesTheStoreAndTheAnswerStands) {
  const TinyEngine engine(kPromptTokens);
  const std::shared_ptr<Transport> tiny = NewStore(64);
  const auto alone = engine.Run(nullptr, {});
  const auto answer = engine.Run(engine.NewClient(tiny).get(), {.store = Ack::kMemory});
  EXPECT_EQ(answer.report.chunks_stored, 0u);
  ASSERT_EQ(answer.report.store_failures.size(), 6u);
  EXPECT_TRUE(absl::IsResourceExhausted(answer.report.store_failures.front()));
  EXPECT_TRUE(SameBits(answer.logits, alone.logits));
}

class EngineNodeFaults : public NodeFixture {};

TEST_F(EngineNodeFaults, NodeGoneMeansTheEngineComputesEverything) {
  const TinyEngine engine(kPromptTokens);
  const auto alone = engine.Run(nullptr, {});
  StartNode();
  const auto client = engine.NewClient(MakeRemoteTransport(target()));
  const auto storing = engine.Run(client.get(), {.deadline = absl::Seconds(10), .store = Ack::kDurable});
  EXPECT_EQ(storing.report.chunks_stored, 6u);
  const auto fetched = engine.Run(client.get(), {.deadline = absl::Seconds(10)});
  EXPECT_EQ(fetched.report.reused_tokens, 6 * kChunk);
  EXPECT_TRUE(SameBits(fetched.logits, alone.logits));
  node_->Kill();
  const auto after = engine.Run(client.get(), {.deadline = absl::Seconds(10)});
  EXPECT_EQ(after.report.reused_tokens, 0u);
  ASSERT_FALSE(after.report.misses.empty());
  EXPECT_EQ(after.report.misses.front().reason, MissReason::kUnreachable);
  EXPECT_TRUE(SameBits(after.logits, alone.logits));
}

}  // namespace
}  // namespace kdn
