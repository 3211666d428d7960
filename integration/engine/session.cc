#include "integration/engine/session.h"

#include <algorithm>
#include <numeric>

#include "integration/engine/kernels.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {
constexpr uint32_t kMaxThreads = 256;
}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(std::shared_ptr<const Model> model,
                                                         const SessionOptions& options) {
  if (options.chunk_tokens == 0 || options.chunk_tokens > kMaxChunkTokens) {
    return InvalidArgument("session: chunk_tokens is {}; it must be 1 to {}", options.chunk_tokens, kMaxChunkTokens);
  }
  if (options.threads == 0 || options.threads > kMaxThreads) {
    return InvalidArgument("session: threads is {}; it must be 1 to {}", options.threads, kMaxThreads);
  }
  if (options.capacity == 0) return InvalidArgument("session: capacity is 0; give room for the prompt and the answer");
  const uint32_t limit = model->config().max_positions;
  if (limit != 0 && options.capacity > limit) {
    return InvalidArgument("session: capacity is {}; the model's max_position_embeddings is {}", options.capacity,
                           limit);
  }
  KDN_ASSIGN_OR_RETURN(KvCache kv, KvCache::Create(model->config(), options.kv_dtype, options.capacity));
  auto workers = std::make_unique<Workers>(options.threads);
  // A step is one block: its products have the shape of the step.
  KDN_ASSIGN_OR_RETURN(ForwardPass pass, ForwardPass::Create(*model, *workers, options.chunk_tokens));
  return std::unique_ptr<Session>(
      new Session(std::move(model), options, std::move(kv), std::move(workers), std::move(pass)));
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options, KvCache kv,
                 std::unique_ptr<Workers> workers, ForwardPass pass)
    : model_(std::move(model)),
      options_(options),
      kv_(std::move(kv)),
      workers_(std::move(workers)),
      pass_(std::move(pass)),
      logits_(model_->config().vocab_size) {}

absl::Status Session::Append(std::span<const Token> tokens, std::vector<float>* all_logits) {
  if (tokens.empty()) return InvalidArgument("session: no tokens to run");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= model_->config().vocab_size) {
      return InvalidArgument("session: token {} is {}; the vocabulary has {}", i, tokens[i],
                             model_->config().vocab_size);
    }
  }
  if (tokens.size() > kv_.capacity() - kv_.length()) {
    return ResourceExhausted("session: {} tokens do not fit after {}; the KV cache has room for {}", tokens.size(),
                             kv_.length(), kv_.capacity());
  }
  while (!tokens.empty()) {
    const size_t to_boundary = options_.chunk_tokens - kv_.length() % options_.chunk_tokens;
    const std::span<const Token> step = tokens.first(std::min(tokens.size(), to_boundary));
    tokens = tokens.subspan(step.size());
    Step(step);
    for (size_t row = 0; all_logits != nullptr && row < step.size(); ++row) {
      pass_.Logits(row, logits_);
      all_logits->insert(all_logits->end(), logits_.begin(), logits_.end());
    }
    if (all_logits == nullptr && tokens.empty()) pass_.Logits(step.size() - 1, logits_);
  }
  return absl::OkStatus();
}

void Session::Step(std::span<const Token> tokens) {
  const uint32_t first = kv_.length();
  std::vector<uint32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), first);
  pass_.Begin(tokens, positions);
  const size_t width = model_->config().KvWidth();
  for (uint32_t layer = 0; layer < model_->config().layers; ++layer) {
    pass_.Project(layer, [&](size_t row, const float* k, const float* v) {
      const size_t at = (first + row) * kv_.RowBytes();
      FromFloats(kv_.dtype(), {k, width}, kv_.k(layer) + at);
      FromFloats(kv_.dtype(), {v, width}, kv_.v(layer) + at);
    });
    pass_.Finish(layer, kv_);
  }
  kv_.set_length(first + static_cast<uint32_t>(tokens.size()));
}

void Session::Resume(uint32_t length, std::span<const float> logits) {
  kv_.set_length(length);
  logits_.assign(logits.begin(), logits.end());
}

Token Session::Greedy() const { return static_cast<Token>(std::ranges::max_element(logits_) - logits_.begin()); }

}  // namespace kdn::engine
