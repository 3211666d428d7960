// Session: one sequence on its way through a model, with its KV cache.
//
//   KDN_ASSIGN_OR_RETURN(auto session, Session::Create(model, {.kv_dtype = DType::kBf16, .capacity = 4096}));
//   KDN_RETURN_IF_ERROR(session->Append(prompt));                     // prefill
//   for (int i = 0; i < 32; ++i) KDN_RETURN_IF_ERROR(session->Append({session->Greedy()}));  // decode
//
// Steps end at multiples of chunk_tokens, keys and values are rounded to the cache's dtype before anything attends to
// them, and every product has a shape that only the step decides. So a sequence whose first chunks were put into the
// cache from elsewhere, byte for byte, goes on with the same bits as one that computed them (on the same machine).
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_ENGINE_SESSION_H_
#define KDN_INTEGRATION_ENGINE_SESSION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "integration/engine/forward_pass.h"
#include "integration/engine/kv_cache.h"
#include "integration/engine/model.h"
#include "integration/engine/parallel.h"
#include "storage/format/chunk_key.h"

namespace kdn::engine {

struct SessionOptions {
  DType kv_dtype = DType::kBf16;
  uint32_t chunk_tokens = 256;
  uint32_t capacity = 4096;  // tokens, prompt and answer together
  uint32_t threads = 2;      // results do not depend on it
};

class Session {
 public:
  // INVALID_ARGUMENT naming the option that is out of bounds; KvCache::Create's errors.
  static absl::StatusOr<std::unique_ptr<Session>> Create(std::shared_ptr<const Model> model,
                                                         const SessionOptions& options);

  const Model& model() const { return *model_; }
  const SessionOptions& options() const { return options_; }
  KvCache& kv() { return kv_; }
  const KvCache& kv() const { return kv_; }

  // Runs `tokens` (at least one) after the kv().length() tokens that are in the cache. Afterwards logits() are those of
  // the last one; `all_logits`, when given, gets those of every token, [tokens, vocab].
  // INVALID_ARGUMENT: no token, or one outside the vocabulary. RESOURCE_EXHAUSTED: the cache is full.
  absl::Status Append(std::span<const Token> tokens, std::vector<float>* all_logits = nullptr);
  absl::Status Append(std::initializer_list<Token> tokens) { return Append(std::span(tokens.begin(), tokens.size())); }

  // Goes on behind `length` tokens whose keys and values another pass put into kv(), with the logits of the last one.
  void Resume(uint32_t length, std::span<const float> logits);

  // [vocab], after the first Append.
  std::span<const float> logits() const { return logits_; }
  // The likeliest next token; the lowest of equals.
  Token Greedy() const;

  // For passes over the same cache; not while the session itself is at work.
  Workers& workers() { return *workers_; }

 private:
  Session(std::shared_ptr<const Model> model, const SessionOptions& options, KvCache kv,
          std::unique_ptr<Workers> workers, ForwardPass pass);

  void Step(std::span<const Token> tokens);

  const std::shared_ptr<const Model> model_;
  const SessionOptions options_;
  KvCache kv_;
  const std::unique_ptr<Workers> workers_;
  ForwardPass pass_;
  std::vector<float> logits_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_SESSION_H_
