// What an operator sees of an engine at work: the real engine, whose reports go to a real node, by the node's
// analytics.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>

#include <memory>
#include <string>
#include <vector>

#include "integration/engine/blend_prompt.h"
#include "integration/engine/kdn_session.h"
#include "integration/system/node_fixture.h"
#include "kdn-client/usage/usage_reporter.h"
#include "kdn/v1/analytics.grpc.pb.h"
#include "storage/analytics/snapshot_wire.h"
#include "storage/base/mutex.h"

namespace kdn {
namespace {

constexpr uint32_t kChunkTokens = 16;
constexpr absl::Duration kPatience = absl::Seconds(60);

// Where the node is, which comes back elsewhere.
class SharedAddress {
 public:
  void Set(const std::string& address) {
    MutexLock lock(mu_);
    address_ = address;
  }
  std::string Get() const {
    MutexLock lock(mu_);
    return address_;
  }

 private:
  mutable Mutex mu_;
  std::string address_ ABSL_GUARDED_BY(mu_);
};

class EngineReportsTest : public NodeFixture {
 protected:
  void SetUp() override {
    StartNode();
    const auto spec =
        engine::ParseRandomModel("layers=4,hidden=64,heads=4,kv_heads=2,intermediate=96,vocab=260,seed=7");
    ASSERT_TRUE(spec.ok()) << spec.status();
    model_ = engine::Model::Random(*spec).value();
    space_ = engine::SpaceOf(*model_, Options(1));
    client_ = Client::Create(space_, MakeRemoteTransport(target())).value();
    StartReporter();
  }
  void StartReporter() {
    address_->Set(target());
    auto started = UsageReporter::Start({.space = space_, .tenant = "team blue"},
                                        AnyNodeUsageSink([address = address_] { return std::vector{address->Get()}; }));
    ASSERT_TRUE(started.ok()) << started.status();
    usage_ = *std::move(started);
  }
  static engine::SessionOptions Options(size_t capacity) {
    return {.chunk_tokens = kChunkTokens, .capacity = static_cast<uint32_t>(capacity), .threads = 1};
  }
  std::unique_ptr<engine::Session> NewSession(size_t capacity) const {
    return engine::Session::Create(model_, Options(capacity)).value();
  }
  static std::vector<Token> Text(uint32_t count, uint64_t seed) {
    std::vector<Token> tokens = MakeTokens(count, seed);
    for (Token& token : tokens) token %= 256;
    return tokens;
  }
  AnalyticsSnapshot Analytics() const {
    const auto stub = v1::AnalyticsService::NewStub(grpc::CreateChannel(target(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::AnalyticsSnapshot response;
    const grpc::Status status = stub->GetAnalytics(&context, v1::GetAnalyticsRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return FromWire(response).value();
  }

  std::shared_ptr<const engine::Model> model_;
  KvSpace space_;
  std::unique_ptr<Client> client_;
  const std::shared_ptr<SharedAddress> address_ = std::make_shared<SharedAddress>();
  std::unique_ptr<UsageReporter> usage_;
};

TEST_F(EngineReportsTest, ANodeKnowsWhatAnEngineComputedBlendedAndIsCalled) {
  const engine::SegmentedPrompt prompt = {.segments = {Text(48, 1), Text(48, 2), Text(48, 3)}, .question = Text(5, 4)};
  for (const std::vector<Token>& segment : prompt.segments) {
    ASSERT_TRUE(engine::StoreSegment(model_, Options(1), *client_, segment, {}, usage_.get()).ok());
  }
  const BlendProfile profile = {
      .space = client_->space_id(),
      .model = "m",
      .schedule = {.checks = {{.layer = 1, .ratio = 0.15}}},
      .floor = 0.15,
      .quality = {.metric = "m", .full = 1, .plain_reuse = 0, .blended = 1, .random = 0, .prompts = 1},
      .tolerance = 0.01,
      .passed = true,
      .made_by = "test"};
  const size_t tokens = prompt.Tokens().size();
  const auto blended = engine::RunBlended(*NewSession(tokens), *client_, prompt,
                                          {.deadline = kPatience, .profile = &profile, .usage = usage_.get()});
  ASSERT_TRUE(blended.ok()) << blended.status();
  ASSERT_TRUE(blended->blended) << blended->why;
  ASSERT_EQ(blended->loaded.used, 9u);
  ASSERT_TRUE(engine::RunBlended(*NewSession(tokens), *client_, prompt, {.deadline = kPatience, .usage = usage_.get()})
                  .ok());  // without a profile
  ASSERT_TRUE(usage_->Flush(kPatience)) << usage_->counts().last_failure;

  const AnalyticsSnapshot snapshot = Analytics();
  ASSERT_EQ(snapshot.spaces.size(), 1u);
  const SpaceAnalytics& space = snapshot.spaces[0];
  EXPECT_EQ(space.space, client_->space_id());
  EXPECT_EQ(space.description.model, space_.model_id);
  EXPECT_EQ(space.description.tenant, "team blue");
  EXPECT_EQ(space.description.chunk_tokens, kChunkTokens);
  EXPECT_EQ(space.blend.prompts, 1);
  EXPECT_EQ(space.blend.prompt_tokens, 149);
  EXPECT_EQ(space.blend.exact_tokens, 48);
  EXPECT_EQ(space.blend.moved_tokens, 96);
  EXPECT_EQ(space.blend.fresh_tokens, 5);
  EXPECT_GT(space.blend.recomputed_tokens, 0);
  EXPECT_GT(space.blend.ComputedRatio(), 0);
  EXPECT_LT(space.blend.ComputedRatio(), 1);
  EXPECT_EQ(space.blend.refused[static_cast<size_t>(BlendRefusal::kNoProfile)], 1);
  EXPECT_EQ(space.prefill_source, PrefillSource::kEngines);
  EXPECT_NEAR(space.measured_prefill_tokens, 144, 2);
  EXPECT_GT(space.prefill_tokens_per_second, 0);
  EXPECT_GT(space.prefill_seconds_saved, 0);
  EXPECT_EQ(space.unpriced_tokens, 0);
}

TEST_F(EngineReportsTest, AnEngineWhoseNodeIsAwayGoesOnAndReportsOnceItIsBack) {
  ASSERT_TRUE(usage_->Flush(kPatience)) << usage_->counts().last_failure;
  StopNode();
  ASSERT_TRUE(engine::RunPrompt(*NewSession(64), nullptr, Text(64, 9), {.usage = usage_.get()}).ok());
  EXPECT_FALSE(usage_->Flush(kPatience));
  EXPECT_EQ(usage_->counts().lost, 0u) << "nothing was sent";
  EXPECT_GT(usage_->counts().kept, 0u);
  StartNode();
  address_->Set(target());
  ASSERT_TRUE(usage_->Flush(kPatience)) << usage_->counts().last_failure;
  EXPECT_NEAR(Analytics().spaces.at(0).measured_prefill_tokens, 64, 1);
}

}  // namespace
}  // namespace kdn
