// An engine with a loading controller: part of a prompt's prefix is fetched, part computed, and the answer is the same.
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/engine/kdn_session.h"
#include "storage/base/status.h"
#include "storage/tiered_store.h"
#include "tests/integration/engine/fixtures.h"
#include "tests/kdn-client/forwarding_transport.h"

namespace kdn::engine {
namespace {

constexpr uint32_t kPrefixChunk = 32;

// Passes everything on, as slowly as the test wants; a call never takes longer than its deadline.
class SlowTransport final : public ForwardingTransport {
 public:
  using ForwardingTransport::ForwardingTransport;

  // Fetches take this much longer for each chunk; infinite: they end at their deadline, with nothing.
  void SlowDown(absl::Duration by_chunk) { by_chunk_ = by_chunk; }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    const absl::Time ready = absl::Now() + by_chunk_ * static_cast<int64_t>(query.keys.size());
    std::this_thread::sleep_until(absl::ToChronoTime(std::min(ready, deadline)));
    if (ready >= deadline) return DeadlineExceeded("too slow");
    return ForwardingTransport::Fetch(query, deadline, sink);
  }

 private:
  absl::Duration by_chunk_;
};

struct LoadOutcome {
  PromptReport report;
  std::string bits;  // of the first logits and of some decoded steps
};

class PrefixLoadTest : public testing::Test {
 protected:
  void SetUp() override {
    transport_ = std::make_shared<SlowTransport>(MakeEmbeddedTransport(TieredStore::Open({}).value()));
    client_ = Client::Create(SpaceOf(*model_, session_options_), transport_).value();
  }

  LoadOutcome Run(std::span<const Token> prompt, const PromptOptions& options) {
    session_options_.capacity = static_cast<uint32_t>(prompt.size()) + 8;
    const auto session = NewSession(model_, session_options_);
    absl::StatusOr<PromptReport> report = RunPrompt(*session, client_.get(), prompt, options);
    EXPECT_TRUE(report.ok()) << report.status();
    LoadOutcome outcome{.report = *std::move(report), .bits = {}};
    for (int step = 0; step < 3; ++step) {
      outcome.bits.append(reinterpret_cast<const char*>(session->logits().data()), session->logits().size_bytes());
      EXPECT_TRUE(session->Append({session->Greedy()}).ok());
    }
    return outcome;
  }
  LoadOutcome Run(std::span<const Token> prompt) { return Run(prompt, {.controller = &controller_}); }

  std::shared_ptr<const Model> model_ = SmallModel();
  SessionOptions session_options_{.kv_dtype = DType::kBf16, .chunk_tokens = kPrefixChunk};
  std::shared_ptr<SlowTransport> transport_;
  std::unique_ptr<Client> client_;
  LoadingController controller_;
};

TEST_F(PrefixLoadTest, TheAnswerIsTheSameHoweverMuchIsHeld) {
  const std::vector<Token> prompt = SomeTokens(12 * kPrefixChunk + 5);
  const LoadOutcome computed = Run(prompt);
  EXPECT_EQ(computed.report.chunks_found, 0u);
  EXPECT_EQ(computed.report.reused_tokens, 0u);
  for (const size_t held : {size_t{1}, size_t{5}, size_t{12}}) {
    Run(std::span(prompt).first(held * kPrefixChunk), {.store = Ack::kMemory});
    for (int request = 0; request < 3; ++request) {
      const LoadOutcome outcome = Run(prompt);
      EXPECT_EQ(outcome.bits, computed.bits) << outcome.report.why;
      EXPECT_EQ(outcome.report.chunks_found, held);
      EXPECT_LE(outcome.report.chunks_fetched, held);
      EXPECT_EQ(outcome.report.computed_tokens + outcome.report.reused_tokens, prompt.size());
      EXPECT_FALSE(outcome.report.why.empty());
    }
  }
}

TEST_F(PrefixLoadTest, TheAnswerIsTheSameWhenTheNetworkIsSlowOrGone) {
  const std::vector<Token> prompt = SomeTokens(12 * kPrefixChunk + 5);
  const LoadOutcome computed = Run(prompt, {.store = Ack::kMemory});
  const auto times = {absl::ZeroDuration(), absl::Milliseconds(1), absl::Milliseconds(3), absl::Milliseconds(20),
                      absl::InfiniteDuration()};
  for (const absl::Duration by_chunk : times) {
    transport_->SlowDown(by_chunk);
    LoadingController fresh;
    for (int request = 0; request < 3; ++request) {
      const LoadOutcome outcome = Run(prompt, {.controller = &fresh});
      EXPECT_EQ(outcome.bits, computed.bits) << by_chunk << ": " << outcome.report.why;
      if (by_chunk == absl::InfiniteDuration()) {
        EXPECT_EQ(outcome.report.reused_tokens, 0u);
      }
    }
  }
}

TEST_F(PrefixLoadTest, WhatWasMissingIsStored) {
  const std::vector<Token> prompt = SomeTokens(6 * kPrefixChunk);
  const LoadOutcome first = Run(prompt, {.store = Ack::kMemory, .controller = &controller_});
  EXPECT_EQ(first.report.chunks_stored, 6u);
  const LoadOutcome second = Run(prompt, {.store = Ack::kMemory, .controller = &controller_});
  EXPECT_EQ(second.report.chunks_stored, 0u);
  EXPECT_EQ(second.bits, first.bits);
}

TEST_F(PrefixLoadTest, LearnsTheEnginesSpeedAndTheLinks) {
  const std::vector<Token> prompt = SomeTokens(12 * kPrefixChunk + 5);
  EXPECT_EQ(controller_.PrefillTime(0, kPrefixChunk), std::nullopt);
  Run(prompt, {.store = Ack::kMemory, .controller = &controller_});
  EXPECT_GT(controller_.PrefillTime(0, kPrefixChunk), absl::ZeroDuration());
  EXPECT_EQ(controller_.DeliveryRate(), std::nullopt);
  // A busy machine may leave the loader too little time in a request or two.
  for (int request = 0; request < 100 && !controller_.DeliveryRate().has_value(); ++request) Run(prompt);
  EXPECT_GT(controller_.DeliveryRate(), 0.0);
}

TEST_F(PrefixLoadTest, ALoadThatIsGivenUpLetsGoOfTheDestination) {
  const std::vector<Token> prompt = SomeTokens(12 * kPrefixChunk + 5);
  Run(prompt, {.store = Ack::kMemory, .controller = &controller_});
  transport_->SlowDown(absl::Milliseconds(5));
  session_options_.capacity = static_cast<uint32_t>(prompt.size());
  const auto session = NewSession(model_, session_options_);
  const auto load = controller_.Start(*client_, prompt, ViewOf(session->kv()), {});
  EXPECT_FALSE(load->Next().done);
}

}  // namespace
}  // namespace kdn::engine
