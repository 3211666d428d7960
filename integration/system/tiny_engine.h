// TinyEngine: the reference engine with a model of a few thousand weights and a prompt, for tests of what happens
// between it and a node.
//
// Thread-safety: const methods may be called from any thread.
#ifndef KDN_INTEGRATION_SYSTEM_TINY_ENGINE_H_
#define KDN_INTEGRATION_SYSTEM_TINY_ENGINE_H_

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "integration/engine/kdn_session.h"
#include "integration/system/node_fixture.h"

namespace kdn {

class TinyEngine {
 public:
  static constexpr uint32_t kChunk = 16;

  // With a prompt of so many tokens.
  explicit TinyEngine(uint32_t prompt_tokens)
      : options_{.chunk_tokens = kChunk, .capacity = prompt_tokens + 8, .threads = 1} {
    const auto spec =
        engine::ParseRandomModel("layers=2,hidden=32,heads=4,kv_heads=2,intermediate=48,vocab=260,seed=5");
    EXPECT_TRUE(spec.ok()) << spec.status();
    auto model = engine::Model::Random(*spec);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    prompt_ = MakeTokens(prompt_tokens, 9);
    for (Token& token : prompt_) token %= 256;
  }

  std::unique_ptr<Client> NewClient(std::shared_ptr<Transport> transport) const {
    auto client = Client::Create(engine::SpaceOf(*model_, options_), std::move(transport));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  struct Answer {
    std::vector<float> logits;
    engine::PromptReport report;
  };
  Answer Run(Client* client, const engine::PromptOptions& options) const {
    auto session = engine::Session::Create(model_, options_);
    EXPECT_TRUE(session.ok()) << session.status();
    auto report = engine::RunPrompt(**session, client, prompt_, options);
    EXPECT_TRUE(report.ok()) << report.status();
    const auto logits = (*session)->logits();
    return {{logits.begin(), logits.end()}, *std::move(report)};
  }

 private:
  const engine::SessionOptions options_;
  std::shared_ptr<const engine::Model> model_;
  std::vector<Token> prompt_;
};

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace kdn

#endif  // KDN_INTEGRATION_SYSTEM_TINY_ENGINE_H_
