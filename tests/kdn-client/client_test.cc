// Misuse by the caller is an error that names it; whatever a transport does is not.
#include "kdn-client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "storage/base/status.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kTokens = 3 * kChunkTokens;

// Answers every call with `status`, and keeps what it was asked to store.
class FakeTransport final : public Transport {
 public:
  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId&, std::span<const ChunkKey> keys, Fidelity,
                                                 absl::Time) override {
    ++calls;
    if (!status.ok()) return status;
    return std::vector<FoundChunk>(keys.size());
  }
  absl::Status Fetch(const FetchQuery&, absl::Time, SlabSink&) override {
    ++calls;
    return status;
  }
  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack, absl::Time) override {
    ++calls;
    if (!status.ok()) return status;
    stored.insert(stored.end(), chunks.begin(), chunks.end());
    return std::vector<absl::Status>(chunks.size());
  }
  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId&, std::span<const ChunkKey>, absl::Time) override {
    return PrefetchCounts();
  }
  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId&, std::span<const ChunkKey> keys,
                                                   absl::Time) override {
    return std::vector<absl::Status>(keys.size());
  }
  absl::StatusOr<Lease> Pin(const SpaceId&, std::span<const ChunkKey>, absl::Duration, absl::Time) override {
    return Lease();
  }
  absl::Status Unpin(uint64_t, absl::Time) override { return status; }
  absl::StatusOr<StoreStats> Stats(absl::Time) override { return StoreStats(); }

  absl::Status status;
  std::vector<Chunk> stored;
  int calls = 0;
};

class ClientTest : public testing::Test {
 protected:
  const KvSpace space_ = TinySpace();
  const std::shared_ptr<FakeTransport> transport_ = std::make_shared<FakeTransport>();
  const std::unique_ptr<Client> client_ = Client::Create(space_, transport_).value();
  const std::vector<ChunkRef> chunks_ = Chain(space_, kTokens);
  EngineMemory memory_ = EngineMemory::WithKv(space_, kTokens);
  ContiguousKv kv_ = memory_.view();

  std::string FetchError(const FetchOptions& options = {}) {
    return client_->Fetch(chunks_, kv_, options).status().ToString();
  }
  std::string StoreError(const StoreOptions& options = {}) {
    return client_->Store(chunks_, kv_, options).status().ToString();
  }
};

TEST_F(ClientTest, ASpaceThatIsNotValidIsRefused) {
  KvSpace nameless = space_;
  nameless.model_id.clear();
  const absl::Status status = Client::Create(nameless, transport_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("model_id"));
  EXPECT_THAT(Client::Create(space_, nullptr).status().ToString(), HasSubstr("transport"));
}

TEST_F(ClientTest, MemoryWithAnotherNumberOfLayersIsRefused) {
  kv_.k.pop_back();
  EXPECT_THAT(FetchError(), HasSubstr("INVALID_ARGUMENT: k has 3 and v 4 layers; the space has 4"));
  EXPECT_THAT(StoreError(), HasSubstr("INVALID_ARGUMENT: k has 3 and v 4 layers"));
}

TEST_F(ClientTest, AMissingTensorIsRefusedWhereItIsNeeded) {
  kv_.k[2] = nullptr;
  EXPECT_THAT(FetchError(), HasSubstr("layer 2: k is null"));
  EXPECT_THAT(StoreError(), HasSubstr("layer 2: k is null"));
  EXPECT_THAT(FetchError({.layers = {.begin = 0, .end = 2}}), HasSubstr("OK"));
  kv_ = memory_.view();
  kv_.v[1] = nullptr;
  EXPECT_THAT(FetchError(), HasSubstr("layer 1: v is null"));
  kv_ = memory_.view();
  kv_.v[3] = kv_.v[0];
  EXPECT_THAT(FetchError(), HasSubstr("layer 3: v is given, but the space stores no V there"));
}

TEST_F(ClientTest, ChunksThatEndBeyondTheMemoryAreRefused) {
  kv_.capacity_tokens = kTokens - 1;
  EXPECT_THAT(FetchError(), HasSubstr("chunk 2: tokens [32, 48) end beyond the memory's capacity of 47 tokens"));
  EXPECT_THAT(StoreError(), HasSubstr("chunk 2: tokens [32, 48) end beyond"));
  kv_.capacity_tokens = kTokens;
  EXPECT_THAT(FetchError({.destination_token = 1}), HasSubstr("chunk 2: tokens [33, 49) end beyond"));
  EXPECT_THAT(FetchError({.destination_token = UINT32_MAX}), HasSubstr("chunk 0: tokens [4294967295, 4294967311)"));
  EXPECT_THAT(FetchError({.places = {{.at = 0}, {.at = 16}, {.at = 33}}}),
              HasSubstr("chunk 2: tokens [33, 49) end beyond"));
  EXPECT_THAT(FetchError({.places = {{}, {.at = 1}}}), HasSubstr("2 places for 3 chunks; give one for each"));
  EXPECT_THAT(FetchError({.places = {{.at = -3}, {.at = 13}, {.at = 29}}}), HasSubstr("OK"))
      << "tokens before 0 are left out";
  EXPECT_THAT(FetchError({.places = {{}, {.at = INT64_MIN}, {}}}), HasSubstr("is no position of a sequence"));
  EXPECT_THAT(FetchError({.places = {{}, {.at = INT64_MAX}, {}}}), HasSubstr("chunk 1: 9223372036854775807 is no"));
}

TEST_F(ClientTest, ChunksOfAnImpossibleLengthAreRefused) {
  std::vector<ChunkRef> chunks = {chunks_[0]};
  chunks[0].tokens = 0;
  EXPECT_THAT(client_->Fetch(chunks, kv_, {}).status().ToString(), HasSubstr("chunk 0: it has 0 tokens"));
  chunks[0].tokens = kChunkTokens + 1;
  EXPECT_THAT(client_->Fetch(chunks, kv_, {}).status().ToString(), HasSubstr("have 1 to 16"));
}

TEST_F(ClientTest, ARangeWithoutLayersIsRefused) {
  EXPECT_THAT(FetchError({.layers = {.begin = 2, .end = 2}}), HasSubstr("layers [2, 2) hold none"));
  EXPECT_THAT(FetchError({.layers = {.begin = 4}}), HasSubstr("hold none of the space's 4 layers"));
}

TEST_F(ClientTest, AnUnknownCodecIsRefusedByName) {
  EXPECT_THAT(StoreError({.codec = "lzma"}), HasSubstr("lzma"));
  EXPECT_EQ(transport_->calls, 0);
}

TEST_F(ClientTest, WhateverATransportFailsWithIsAMissWithItsReason) {
  const std::vector<std::pair<absl::Status, MissReason>> failures = {
      {Unavailable("gone"), MissReason::kUnreachable},   {DeadlineExceeded("late"), MissReason::kDeadline},
      {ResourceExhausted("busy"), MissReason::kRefused}, {Unimplemented("not a node"), MissReason::kProtocol},
      {DataLoss("nonsense"), MissReason::kProtocol},     {Internal("oh"), MissReason::kInternal},
  };
  for (const auto& [status, reason] : failures) {
    transport_->status = status;
    const FetchReport report = client_->Fetch(chunks_, kv_, {}).value();
    EXPECT_THAT(Reasons(report), ElementsAre(reason, reason, reason));
    EXPECT_EQ(report.ready, 0u);
    EXPECT_THAT(report.chunks[0].miss.detail, HasSubstr(MessageOf(status)));
    const PrefixHit hit = client_->LookupPrefix(SomeTokens(kTokens), {});
    EXPECT_EQ(hit.hits, 0u);
    EXPECT_EQ(hit.stopped_by.reason, reason);
    EXPECT_THAT(client_->Store(chunks_, kv_, {})->chunks, Each(status));
  }
}

TEST_F(ClientTest, ASlabThatDoesNotShrinkIsKeptRaw) {
  std::mt19937 random(7);
  for (uint8_t& byte : memory_.k(0)) byte = static_cast<uint8_t>(random());
  ASSERT_TRUE(client_->Store(chunks_, kv_, {.codec = "zstd"}).ok());
  ASSERT_EQ(transport_->stored.size(), 3u);
  const Manifest& manifest = *transport_->stored[1].manifest;
  EXPECT_EQ(manifest.slabs[0].codec, CodecId::kRaw);   // noise
  EXPECT_EQ(manifest.slabs[2].codec, CodecId::kZstd);  // KV
  EXPECT_EQ(manifest.fidelity, Fidelity::kExact);
  EXPECT_EQ(ValidateManifest(manifest), absl::OkStatus());
  EXPECT_EQ(manifest.parent, chunks_[0].key);
}

TEST_F(ClientTest, AStoreHoldsNoMoreThanABatchOfChunks) {
  KvSpace wide = space_;
  wide.layers = {{.count = 1, .kv_heads = 64, .k_dim = 4096, .v_dim = 4096, .rope = {}}};  // 16 MiB a chunk
  EngineMemory memory(wide, 10 * kChunkTokens);
  const StoreReport report = Client::Create(wide, transport_)
                                 .value()
                                 ->Store(Chain(wide, size_t{10} * kChunkTokens), memory.view(), {.codec = "raw"})
                                 .value();
  EXPECT_EQ(report.Stored(), 10u);
  EXPECT_EQ(report.raw_bytes, uint64_t{160} << 20);
  EXPECT_EQ(transport_->calls, 3);  // 64 + 64 + 32 MiB
}

TEST_F(ClientTest, NothingAskedForIsNothingDone) {
  EXPECT_TRUE(client_->Fetch({}, kv_, {})->AllReady());
  EXPECT_TRUE(client_->Store({}, kv_, {})->chunks.empty());
  EXPECT_EQ(transport_->calls, 0);
}

TEST(ValidateTargetTest, SaysWhatIsWrong) {
  for (const char* good : {"127.0.0.1:7401", "node-3.example:1", "[::1]:65535", "unix:/run/kdn.sock"}) {
    EXPECT_EQ(ValidateTarget(good), absl::OkStatus()) << good;
  }
  const std::vector<std::pair<const char*, const char*>> bad = {
      {"", "port is missing"},       {"localhost", "port is missing"},  {"localhost:", "'' is no port"},
      {"localhost:0", "is no port"}, {"localhost:65536", "1 to 65535"}, {"localhost:http", "'http' is no port"},
      {":7401", "host is missing"},  {"::1:7401", "[address]:port"},    {"http://node:7401", "is no host"},
      {"unix:", "path is missing"},  {"a b:1", "is no host"},
  };
  for (const auto& [target, why] : bad) {
    const absl::Status status = ValidateTarget(target);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << target;
    EXPECT_THAT(status.ToString(), HasSubstr(why));
  }
}

TEST(ValidateTargetTest, ATransportToABadTargetRefusesEveryCall) {
  const std::unique_ptr<Client> client = Client::Create(TinySpace(), MakeRemoteTransport("localhost")).value();
  const PrefixHit hit = client->LookupPrefix(SomeTokens(kTokens), {});
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_THAT(hit.stopped_by.detail, HasSubstr("target 'localhost': the port is missing; write host:port"));
  EXPECT_EQ(client->Unpin(1, absl::Seconds(1)).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kdn
