// A node that stops, a link that stalls, a connection that is cut, at any moment of a request: the engine goes on
// within its deadline and gives the answer that it would have given alone.
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "integration/link/link_proxy.h"
#include "integration/system/node_fixture.h"
#include "integration/system/tiny_engine.h"

namespace kdn {
namespace {

constexpr uint32_t kPromptTokens = 24 * TinyEngine::kChunk + 5;
constexpr absl::Duration kDeadline = absl::Milliseconds(100);
// Beyond its deadline a request may still compute; this is what a busy machine may add to that.
constexpr absl::Duration kGrace = absl::Seconds(5);

enum class Event { kNodeStops, kLinkStalls, kConnectionsAreCut };

// How the engine reaches the node.
struct Way {
  std::string name;
  RemoteOptions remote;
  int requests;
  bool by_link = true;  // otherwise fetches are over too soon to be disturbed often, and only the node can be

  friend void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }
};

class EngineStallTest : public NodeFixture, public testing::WithParamInterface<Way> {
 protected:
  void SetUp() override {
    StartNode();
    NewLink();
    const auto stored = engine_.Run(client_.get(), {.deadline = absl::Seconds(20), .store = Ack::kMemory});
    ASSERT_EQ(stored.report.chunks_stored, 24u);
  }

  // As slow as it takes for events to fall into the middle of fetches.
  void NewLink() {
    const auto node = ParseEndpoint(target());
    ASSERT_TRUE(node.ok()) << node.status();
    auto link = LinkProxy::Start(*node, {.down_bits_per_second = 50'000'000, .latency = absl::Milliseconds(1)});
    ASSERT_TRUE(link.ok()) << link.status();
    client_.reset();
    link_ = *std::move(link);
    client_ = engine_.NewClient(MakeRemoteTransport(link_->endpoint().ToString(), GetParam().remote));
  }

  void Begin(Event event) {
    switch (event) {
      case Event::kNodeStops:
        return node_->Pause();
      case Event::kLinkStalls:
        return link_->Stall();
      case Event::kConnectionsAreCut:
        return link_->Cut();
    }
  }
  void End(Event event) {
    switch (event) {
      case Event::kNodeStops:
        return node_->Resume();
      case Event::kLinkStalls:
        return link_->Resume();
      case Event::kConnectionsAreCut:
        return NewLink();
    }
  }

  const TinyEngine engine_{kPromptTokens};
  std::unique_ptr<LinkProxy> link_;
  std::unique_ptr<Client> client_;
};

TEST_P(EngineStallTest, TheEngineGoesOnWithinItsDeadlineEveryTimeAndGivesTheSameAnswer) {
  const auto alone = engine_.Run(nullptr, {});
  LoadingController controller;
  std::mt19937 random(1);
  int disturbed = 0;
  for (int request = 0; request < GetParam().requests; ++request) {
    const auto event = GetParam().by_link ? static_cast<Event>(request % 3) : Event::kNodeStops;
    SCOPED_TRACE(testing::Message() << "request " << request << ", event " << static_cast<int>(event));
    const auto after = std::chrono::microseconds(random() % (GetParam().by_link ? 12'000 : 1'000));
    std::thread disturbance([&] {
      std::this_thread::sleep_for(after);
      Begin(event);
    });
    engine::PromptOptions options = {.deadline = kDeadline};
    if (request % 2 == 0) options.controller = &controller;
    const absl::Time begin = absl::Now();
    const auto answer = engine_.Run(client_.get(), options);
    const absl::Duration took = absl::Now() - begin;
    disturbance.join();
    End(event);
    ASSERT_TRUE(SameBits(answer.logits, alone.logits));
    ASSERT_LT(took, kDeadline + kGrace);
    ASSERT_LE(answer.report.lookup + answer.report.fetch, kDeadline + kGrace);
    if (answer.report.reused_tokens < 24 * TinyEngine::kChunk) ++disturbed;
  }
  EXPECT_GT(disturbed, GetParam().by_link ? GetParam().requests / 10 : 0) << "events came too late to disturb anything";
  // And all is well again.
  const auto healed = engine_.Run(client_.get(), {.deadline = absl::Seconds(20)});
  EXPECT_EQ(healed.report.reused_tokens, 24 * TinyEngine::kChunk);
  EXPECT_TRUE(SameBits(healed.logits, alone.logits));
}

INSTANTIATE_TEST_SUITE_P(Ways, EngineStallTest,
                         testing::Values(Way{"bulk", {.shared_memory = false}, 200}, Way{"grpc", {.bulk = false}, 60},
                                         Way{"shared", {}, 60, /*by_link=*/false}),
                         [](const auto& way) { return way.param.name; });

}  // namespace
}  // namespace kdn
