#include "integration/engine/blend_pass.h"

#include <algorithm>
#include <utility>

#include "integration/engine/space.h"
#include "storage/base/status.h"

namespace kdn::engine {

absl::StatusOr<std::unique_ptr<BlendPass>> BlendPass::Create(Session& session) {
  KDN_ASSIGN_OR_RETURN(ForwardPass pass, ForwardPass::Create(session.model(), session.workers(), kBlockRows));
  return std::unique_ptr<BlendPass>(new BlendPass(session, std::move(pass)));
}

BlendPass::BlendPass(Session& session, ForwardPass pass)
    : session_(session), pass_(std::move(pass)), space_(SpaceOf(session.model(), session.options())) {}

uint32_t BlendPass::max_positions() const { return config().max_positions; }
uint32_t BlendPass::vocab_size() const { return config().vocab_size; }

absl::Status BlendPass::CheckTurn(const char* call, Turn turn, uint32_t layer) const {
  if (turn_ == turn && layer_ == layer) return absl::OkStatus();
  switch (turn_) {
    case Turn::kBegin:
      return FailedPrecondition("blend pass: {} of layer {} before Begin; begin a pass first", call, layer);
    case Turn::kProject:
      return FailedPrecondition("blend pass: {} of layer {}, but Project of layer {} is next", call, layer, layer_);
    case Turn::kFinish:
      return FailedPrecondition("blend pass: {} of layer {}, but Finish of layer {} is next", call, layer, layer_);
    case Turn::kLogits:
      break;
  }
  return FailedPrecondition("blend pass: {} of layer {}, but all {} layers are done; begin another pass", call, layer,
                            layer_);
}

absl::Status BlendPass::Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) {
  if (tokens.empty()) return InvalidArgument("blend pass: no tokens to run; give at least one");
  if (tokens.size() != positions.size()) {
    return InvalidArgument("blend pass: {} tokens at {} positions; give each one its own", tokens.size(),
                           positions.size());
  }
  const uint32_t limit = config().max_positions;
  for (size_t row = 0; row < tokens.size(); ++row) {
    if (tokens[row] >= config().vocab_size) {
      return InvalidArgument("blend pass: token {} is {}; the vocabulary has {}", row, tokens[row],
                             config().vocab_size);
    }
    if (row > 0 && positions[row] <= positions[row - 1]) {
      return InvalidArgument("blend pass: position {} is {}, after {}; positions must ascend", row, positions[row],
                             positions[row - 1]);
    }
    if (limit != 0 && positions[row] >= limit) {
      return InvalidArgument("blend pass: position {} is {}; the model's max_position_embeddings is {}", row,
                             positions[row], limit);
    }
    if (positions[row] >= session_.kv().capacity()) {
      return ResourceExhausted("blend pass: position {} is {}; the KV cache has room for {}", row, positions[row],
                               session_.kv().capacity());
    }
  }
  // From the first row on, keys and values in the cache are those of no one sequence until the pass is through.
  session_.kv().set_length(std::min(session_.kv().length(), positions.front()));
  pass_.Begin(tokens, positions);
  turn_ = Turn::kProject;
  layer_ = 0;
  marked_layer_.reset();
  return absl::OkStatus();
}

absl::Status BlendPass::Project(uint32_t layer, std::span<float> k, std::span<float> v) {
  KDN_RETURN_IF_ERROR(CheckTurn("Project", Turn::kProject, layer));
  const size_t width = config().KvWidth();
  const size_t size = pass_.rows() * width;
  if (k.size() != size || v.size() != size) {
    return InvalidArgument("blend pass: room for {} floats of keys and {} of values; {} rows have {} of each", k.size(),
                           v.size(), pass_.rows(), size);
  }
  pass_.Project(layer, [&](size_t row, const float* row_k, const float* row_v) {
    std::copy_n(row_k, width, k.data() + row * width);
    std::copy_n(row_v, width, v.data() + row * width);
  });
  turn_ = Turn::kFinish;
  return absl::OkStatus();
}

absl::Status BlendPass::Keep(std::span<const uint32_t> kept) {
  if (turn_ != Turn::kFinish) {
    return FailedPrecondition("blend pass: Keep is not between Project and Finish of a layer");
  }
  if (kept.empty()) return InvalidArgument("blend pass: Keep of no rows; keep at least one");
  for (size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] >= pass_.rows() || (i > 0 && kept[i] <= kept[i - 1])) {
      return InvalidArgument("blend pass: Keep's entry {} is {}; entries must ascend and be below {}, the rows", i,
                             kept[i], pass_.rows());
    }
  }
  pass_.Keep(kept);
  return absl::OkStatus();
}

absl::Status BlendPass::Finish(uint32_t layer) {
  KDN_RETURN_IF_ERROR(CheckTurn("Finish", Turn::kFinish, layer));
  pass_.Finish(layer, session_.kv());
  ++layer_;
  turn_ = Turn::kProject;
  if (layer_ < config().layers) return absl::OkStatus();
  turn_ = Turn::kLogits;
  std::vector<float> logits(config().vocab_size);
  pass_.Logits(pass_.rows() - 1, logits);
  session_.Resume(pass_.positions().back() + 1, logits);
  return absl::OkStatus();
}

void BlendPass::Mark() {
  marked_layer_.reset();
  if (turn_ != Turn::kProject) return;
  pass_.Mark();
  marked_layer_ = layer_;
}

absl::Status BlendPass::Rewind() {
  if (!marked_layer_.has_value()) {
    return FailedPrecondition("blend pass: Rewind without a Mark before Project of a layer of this pass");
  }
  pass_.Rewind();
  turn_ = Turn::kProject;
  layer_ = *marked_layer_;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> BlendPass::Logits(std::span<const uint32_t> positions) {
  if (turn_ != Turn::kLogits) {
    return FailedPrecondition("blend pass: Logits before the last layer is finished");
  }
  std::vector<size_t> rows;
  rows.reserve(positions.size());
  const std::span<const uint32_t> have = pass_.positions();
  for (const uint32_t position : positions) {
    const auto it = std::ranges::lower_bound(have, position);
    if (it == have.end() || *it != position) {
      return InvalidArgument("blend pass: Logits of position {}, where no row of the pass stands", position);
    }
    rows.push_back(static_cast<size_t>(it - have.begin()));
  }
  std::vector<float> logits(positions.size() * config().vocab_size);
  pass_.Logits(rows, logits);
  return logits;
}

}  // namespace kdn::engine
