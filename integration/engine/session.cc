#include "integration/engine/session.h"

#include <algorithm>
#include <cstring>

#include "integration/engine/kernels.h"
#include "integration/engine/linear.h"
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
  return std::unique_ptr<Session>(new Session(std::move(model), options, std::move(kv)));
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options, KvCache kv)
    : model_(std::move(model)),
      options_(options),
      kv_(std::move(kv)),
      workers_(options.threads),
      rope_(model_->config()),
      attention_(model_->config(), workers_),
      logits_(model_->config().vocab_size) {
  const ModelConfig& config = model_->config();
  const size_t rows = std::min(options.chunk_tokens, options.capacity);
  x_ = FloatArray(rows * config.hidden_size);
  normed_ = FloatArray(rows * config.hidden_size);
  qkv_ = FloatArray(rows * (config.QueryWidth() + 2 * config.KvWidth()));
  attended_ = FloatArray(rows * config.QueryWidth());
  gate_up_ = FloatArray(rows * 2 * config.intermediate_size);
  activated_ = FloatArray(rows * config.intermediate_size);
}

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
      ComputeLogits(row);
      all_logits->insert(all_logits->end(), logits_.begin(), logits_.end());
    }
    if (all_logits == nullptr && tokens.empty()) ComputeLogits(step.size() - 1);
  }
  return absl::OkStatus();
}

void Session::Step(std::span<const Token> tokens) {
  const ModelConfig& config = model_->config();
  const uint32_t first_position = kv_.length();
  for (size_t row = 0; row < tokens.size(); ++row) {
    std::memcpy(x_.data() + row * config.hidden_size,
                model_->weights().embedding.data() + size_t{tokens[row]} * config.hidden_size,
                config.hidden_size * sizeof(float));
  }
  rope_.Fill(first_position, tokens.size());
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    AttentionBlock(layer, tokens.size(), first_position);
    MlpBlock(layer, tokens.size());
  }
  kv_.set_length(first_position + static_cast<uint32_t>(tokens.size()));
}

void Session::AttentionBlock(uint32_t layer, size_t rows, uint32_t first_position) {
  const ModelConfig& config = model_->config();
  const LayerWeights& weights = model_->weights().layers[layer];
  const size_t hidden = config.hidden_size;
  const size_t query = config.QueryWidth();
  const size_t kv = config.KvWidth();
  const size_t stride = query + 2 * kv;
  workers_.Run(rows, [&](size_t row, size_t) {
    RmsNorm({x_.data() + row * hidden, hidden}, weights.attention_norm.data(), static_cast<float>(config.rms_norm_eps),
            normed_.data() + row * hidden);
  });
  Linear(normed_.data(), rows, hidden, weights.qkv, qkv_.data(), Into::kReplace, workers_);
  workers_.Run(rows, [&](size_t row, size_t) {
    float* q = qkv_.data() + row * stride;
    float* k = q + query;
    rope_.Rotate(row, q, config.heads + config.kv_heads);
    const size_t at = (first_position + row) * kv_.RowBytes();
    FromFloats(kv_.dtype(), {k, kv}, kv_.k(layer) + at);
    FromFloats(kv_.dtype(), {k + kv, kv}, kv_.v(layer) + at);
  });
  attention_.Run(qkv_.data(), stride, rows, first_position, kv_, layer, attended_.data());
  Linear(attended_.data(), rows, query, weights.attention_out, x_.data(), Into::kAdd, workers_);
}

void Session::MlpBlock(uint32_t layer, size_t rows) {
  const ModelConfig& config = model_->config();
  const LayerWeights& weights = model_->weights().layers[layer];
  const size_t hidden = config.hidden_size;
  const size_t inner = config.intermediate_size;
  workers_.Run(rows, [&](size_t row, size_t) {
    RmsNorm({x_.data() + row * hidden, hidden}, weights.mlp_norm.data(), static_cast<float>(config.rms_norm_eps),
            normed_.data() + row * hidden);
  });
  Linear(normed_.data(), rows, hidden, weights.gate_up, gate_up_.data(), Into::kReplace, workers_);
  workers_.Run(rows, [&](size_t row, size_t) {
    const float* gate = gate_up_.data() + row * 2 * inner;
    SwiGlu({gate, inner}, gate + inner, activated_.data() + row * inner);
  });
  Linear(activated_.data(), rows, inner, weights.down, x_.data(), Into::kAdd, workers_);
}

void Session::ComputeLogits(size_t row) {
  const ModelConfig& config = model_->config();
  const size_t hidden = config.hidden_size;
  RmsNorm({x_.data() + row * hidden, hidden}, model_->weights().final_norm.data(),
          static_cast<float>(config.rms_norm_eps), normed_.data());
  Linear(normed_.data(), 1, hidden, model_->weights().OutputHead(), logits_.data(), Into::kReplace, workers_);
}

Token Session::Greedy() const { return static_cast<Token>(std::ranges::max_element(logits_) - logits_.begin()); }

}  // namespace kdn::engine
