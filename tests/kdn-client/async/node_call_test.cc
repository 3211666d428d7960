// Asynchronous calls to a real node.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kdn-client/async/async_client.h"
#include "kdn-client/async/hedged_transport.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/kdn-node/node_test.h"

namespace kdn {
namespace {

using ::testing::Contains;
using ::testing::Each;

constexpr absl::Duration kPlenty = absl::Seconds(60);
constexpr uint32_t kTokens = 4 * kChunkTokens;

class AsyncNodeTest : public NodeTest {
 protected:
  void StartAndFill() {
    StartNode();
    transport_ = MakeRemoteTransport(server_->endpoint().ToString());
    client_ = Client::Create(tiny_, transport_).value();
    ASSERT_EQ(client_->Store(chunks_, computed_.view(), {}).value().Stored(), chunks_.size());
  }

  Gate gate_;  // outlives the node
  const KvSpace tiny_ = TinySpace();
  const std::vector<ChunkRef> chunks_ = Chain(tiny_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(tiny_, kTokens);
  EngineMemory memory_{tiny_, kTokens};
  std::shared_ptr<Transport> transport_;
  std::shared_ptr<Client> client_;
};

TEST_F(AsyncNodeTest, AFetchWhoseStreamStandsStillIsCancelled) {
  StartAndFill();
  store_->before_fetch = [&](const ChunkKey& key, LayerRange) {
    if (key == chunks_[2].key) gate_.Pass();
  };
  {
    AsyncClient async(client_);
    const FetchCall call = async.StartFetch(chunks_, memory_.view(), {.deadline = kPlenty});
    gate_.AwaitArrival();
    EXPECT_FALSE(call.done());
    call.Cancel();
    const absl::StatusOr<FetchReport>& got = call.Wait();
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_THAT(Reasons(*got), Contains(MissReason::kCancelled));
    EXPECT_EQ(got->chunks[2].miss.reason, MissReason::kCancelled);
  }
  gate_.Open();
}

TEST_F(AsyncNodeTest, ANodeThatStandsStillLosesToItsReplica) {
  StartAndFill();
  const std::shared_ptr<TieredStore> other = TieredStore::Open({}).value();
  const auto filler = Client::Create(tiny_, MakeEmbeddedTransport(other)).value();
  ASSERT_EQ(filler->Store(chunks_, computed_.view(), {}).value().Stored(), chunks_.size());
  store_->before_fetch = [&](const ChunkKey&, LayerRange) { gate_.Pass(); };
  const std::shared_ptr<HedgedTransport> hedged =
      MakeHedgedTransport({transport_, MakeEmbeddedTransport(other)}, {.delay = absl::Milliseconds(1)}).value();
  const auto client = Client::Create(tiny_, hedged).value();
  EXPECT_THAT(Reasons(client->Fetch(chunks_, memory_.view(), {.deadline = kPlenty}).value()), Each(MissReason::kNone));
  EXPECT_TRUE(memory_ == computed_);
  EXPECT_EQ(hedged->Counts().hedge_won, 1u);
  gate_.Open();
}

TEST_F(AsyncNodeTest, ANodeThatIsAwayIsFollowedByItsReplica) {
  StartAndFill();
  const std::string gone = server_->endpoint().ToString();
  const std::shared_ptr<HedgedTransport> hedged =
      MakeHedgedTransport({MakeRemoteTransport(gone), MakeEmbeddedTransport(TieredStore::Open({}).value())},
                          {.delay = absl::Hours(1)})
          .value();
  server_.reset();
  const auto client = Client::Create(tiny_, hedged).value();
  EXPECT_THAT(Reasons(client->Fetch(chunks_, memory_.view(), {.deadline = kPlenty}).value()),
              Each(MissReason::kNotFound));
  EXPECT_EQ(hedged->Counts().failed_over, 1u);
}

}  // namespace
}  // namespace kdn
