#include "integration/engine/forward_pass.h"

#include <algorithm>
#include <cstring>

#include "integration/engine/kernels.h"
#include "integration/engine/linear.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

// Moves rows `kept` of `array`, [rows, width], to its front.
void KeepRows(std::span<const uint32_t> kept, size_t width, FloatArray& array) {
  for (size_t row = 0; row < kept.size(); ++row) {
    if (kept[row] == row) continue;
    std::memcpy(array.data() + row * width, array.data() + kept[row] * width, width * sizeof(float));
  }
}

}  // namespace

absl::StatusOr<ForwardPass> ForwardPass::Create(const Model& model, Workers& workers, size_t block_rows) {
  KDN_ASSIGN_OR_RETURN(RopeTable rope, RopeTable::Create(model.config().rope, model.config().head_dim));
  return ForwardPass(model, workers, block_rows, std::move(rope));
}

ForwardPass::ForwardPass(const Model& model, Workers& workers, size_t block_rows, RopeTable rope)
    : model_(&model),
      workers_(&workers),
      block_rows_(block_rows),
      rope_(std::move(rope)),
      attention_(model.config(), workers) {}

void ForwardPass::ForEachBlock(absl::FunctionRef<void(size_t first, size_t rows)> work) const {
  const size_t blocks = (rows() + block_rows_ - 1) / block_rows_;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t first = rows() * block / blocks;
    work(first, rows() * (block + 1) / blocks - first);
  }
}

void ForwardPass::Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) {
  const ModelConfig& config = model_->config();
  const size_t hidden = config.hidden_size;
  const size_t inner = config.intermediate_size;
  const size_t block = std::min(block_rows_, tokens.size());
  positions_.assign(positions.begin(), positions.end());
  x_.Reserve(tokens.size() * hidden);
  queries_.Reserve(tokens.size() * config.QueryWidth());
  normed_.Reserve(block * hidden);
  qkv_.Reserve(block * (config.QueryWidth() + 2 * config.KvWidth()));
  attended_.Reserve(block * config.QueryWidth());
  gate_up_.Reserve(block * 2 * inner);
  activated_.Reserve(block * inner);
  for (size_t row = 0; row < tokens.size(); ++row) {
    std::memcpy(x(row), model_->weights().embedding.data() + size_t{tokens[row]} * hidden, hidden * sizeof(float));
  }
  rope_.Fill(positions);
}

void ForwardPass::Normalise(size_t first, size_t rows, const FloatArray& weight) {
  const size_t hidden = model_->config().hidden_size;
  const auto epsilon = static_cast<float>(model_->config().rms_norm_eps);
  workers_->Run(rows, [&](size_t row, size_t) {
    RmsNorm({x(first + row), hidden}, weight.data(), epsilon, normed_.data() + row * hidden);
  });
}

// From what the product gave to queries, keys and values as they are used: biases, norms of the heads, RoPE.
void ForwardPass::PrepareHeads(uint32_t layer, size_t row, float* qkv) const {
  const ModelConfig& config = model_->config();
  const LayerWeights& weights = model_->weights().layers[layer];
  const size_t dim = config.head_dim;
  if (config.qkv_bias) Add({qkv, weights.qkv_bias.size()}, weights.qkv_bias.data());
  if (config.qk_norm) {
    const auto epsilon = static_cast<float>(config.rms_norm_eps);
    for (size_t head = 0; head < config.heads + config.kv_heads; ++head) {
      const float* weight = head < config.heads ? weights.q_norm.data() : weights.k_norm.data();
      RmsNorm({qkv + head * dim, dim}, weight, epsilon, qkv + head * dim);
    }
  }
  if (config.HasRope(layer)) rope_.Rotate(row, qkv, config.heads + config.kv_heads);
}

void ForwardPass::Project(uint32_t layer, TakeKv take) {
  const ModelConfig& config = model_->config();
  const LayerWeights& weights = model_->weights().layers[layer];
  const size_t query = config.QueryWidth();
  const size_t kv = config.KvWidth();
  ForEachBlock([&](size_t first, size_t rows) {
    Normalise(first, rows, weights.attention_norm);
    Linear(normed_.data(), rows, config.hidden_size, weights.qkv, qkv_.data(), Into::kReplace, *workers_);
    workers_->Run(rows, [&](size_t row, size_t) {
      float* q = qkv_.data() + row * (query + 2 * kv);
      PrepareHeads(layer, first + row, q);
      std::memcpy(queries_.data() + (first + row) * query, q, query * sizeof(float));
      take(first + row, q + query, q + query + kv);
    });
  });
}

void ForwardPass::Keep(std::span<const uint32_t> kept) {
  KeepRows(kept, model_->config().hidden_size, x_);
  KeepRows(kept, model_->config().QueryWidth(), queries_);
  rope_.Keep(kept);
  for (size_t row = 0; row < kept.size(); ++row) positions_[row] = positions_[kept[row]];
  positions_.resize(kept.size());
}

void ForwardPass::Finish(uint32_t layer, const KvCache& kv) {
  const ModelConfig& config = model_->config();
  const LayerWeights& weights = model_->weights().layers[layer];
  const size_t query = config.QueryWidth();
  ForEachBlock([&](size_t first, size_t rows) {
    attention_.Run(queries_.data() + first * query, std::span(positions_).subspan(first, rows), kv, layer,
                   attended_.data());
    Linear(attended_.data(), rows, query, weights.attention_out, x(first), Into::kAdd, *workers_);
    Mlp(layer, first, rows);
  });
}

void ForwardPass::Mlp(uint32_t layer, size_t first, size_t rows) {
  const LayerWeights& weights = model_->weights().layers[layer];
  const size_t hidden = model_->config().hidden_size;
  const size_t inner = model_->config().intermediate_size;
  Normalise(first, rows, weights.mlp_norm);
  Linear(normed_.data(), rows, hidden, weights.gate_up, gate_up_.data(), Into::kReplace, *workers_);
  workers_->Run(rows, [&](size_t row, size_t) {
    const float* gate = gate_up_.data() + row * 2 * inner;
    SwiGlu({gate, inner}, gate + inner, activated_.data() + row * inner);
  });
  Linear(activated_.data(), rows, inner, weights.down, x(first), Into::kAdd, *workers_);
}

void ForwardPass::Mark() {
  const size_t size = rows() * model_->config().hidden_size;
  marked_positions_ = positions_;
  marked_x_.Reserve(size);
  std::copy_n(x_.data(), size, marked_x_.data());
}

void ForwardPass::Rewind() {
  positions_ = marked_positions_;
  std::copy_n(marked_x_.data(), rows() * model_->config().hidden_size, x_.data());
  rope_.Fill(positions_);
}

void ForwardPass::Logits(size_t row, std::span<float> logits) { Logits(std::span(&row, 1), logits); }

void ForwardPass::Logits(std::span<const size_t> rows, std::span<float> logits) {
  const size_t hidden = model_->config().hidden_size;
  const auto epsilon = static_cast<float>(model_->config().rms_norm_eps);
  const size_t block = normed_.size() / hidden;
  for (size_t first = 0; first < rows.size(); first += block) {
    const size_t count = std::min(block, rows.size() - first);
    for (size_t i = 0; i < count; ++i) {
      RmsNorm({x(rows[first + i]), hidden}, model_->weights().final_norm.data(), epsilon, normed_.data() + i * hidden);
    }
    Linear(normed_.data(), count, hidden, model_->weights().OutputHead(),
           logits.data() + first * model_->config().vocab_size, Into::kReplace, *workers_);
  }
}

}  // namespace kdn::engine
