#include "tests/kdn-client/blend/toy_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "kdn-client/blend/selection.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kHidden = 8;
constexpr size_t kHeads = 2;
constexpr size_t kKeyDim = 4;
constexpr size_t kValueDim = 6;

// In [-1, 1), the same for the same arguments.
double Weight(uint64_t seed, uint64_t index) {
  return RandomScore(seed * 1000003 + 7, static_cast<uint32_t>(index)) / 4503599627370496.0 - 1.0;
}

}  // namespace

KvSpace ToySpace(uint32_t layers, DType dtype) {
  KvSpace space;
  space.model_id = "toy";
  space.weights_revision = "1";
  space.dtype = dtype;
  space.chunk_tokens = 8;
  const LayerRun run = {.count = layers,
                        .kv_heads = kHeads,
                        .k_dim = kKeyDim,
                        .v_dim = kValueDim,
                        .rope = {.kind = RopeKind::kHalfSplit, .rotary_dim = kKeyDim, .theta = 100}};
  space.layers = {run};
  if (layers > 1) {  // the last one has no positions
    space.layers[0].count = layers - 1;
    space.layers.push_back(run);
    space.layers[1].count = 1;
    space.layers[1].rope = {};
  }
  return space;
}

ToyMemory::ToyMemory(const KvSpace& space, uint32_t tokens, uint32_t block_tokens) {
  tokens = std::max(tokens, 1U);
  const uint32_t layers = LayerCount(space);
  const uint32_t unit = block_tokens == 0 ? tokens : block_tokens;
  const uint32_t blocks = (tokens + unit - 1) / unit;
  const auto tensors_of = [&](size_t dim) {
    std::vector<uint8_t*> pointers;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      tensors_.emplace_back(size_t{blocks} * unit * kHeads * dim * DTypeSize(space.dtype));
      pointers.push_back(tensors_.back().data());
    }
    return pointers;
  };
  std::vector<uint8_t*> k = tensors_of(kKeyDim);
  std::vector<uint8_t*> v = tensors_of(kValueDim);
  if (block_tokens == 0) {
    layout_ = ContiguousKv{.k = k, .v = v, .capacity_tokens = tokens};
    return;
  }
  for (uint32_t block = 0; block < blocks; ++block) table_.push_back(static_cast<int32_t>(blocks - 1 - block));
  layout_ = PagedKv{.pool_order = PoolOrder::kSeparate,
                    .block_order = BlockOrder::kHnd,
                    .k = k,
                    .v = v,
                    .blocks = blocks,
                    .block_tokens = block_tokens,
                    .block_table = table_};
}

ToyModel::ToyModel(KvSpace space, const KvLayout& kv, uint32_t tokens)
    : space_(std::move(space)), kv_(*KvRows::Over(space_, kv, tokens)) {}

absl::Status ToyModel::Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) {
  calls_.push_back(fmt::format("begin {}", tokens.size()));
  x_.clear();
  positions_.assign(positions.begin(), positions.end());
  for (const Token token : tokens) {
    Vector x(kHidden);
    for (size_t i = 0; i < kHidden; ++i) x[i] = Weight(token + 1, i);
    x_.push_back(x);
  }
  return absl::OkStatus();
}

absl::Status ToyModel::Project(uint32_t layer, std::span<float> k, std::span<float> v) {
  calls_.push_back(fmt::format("project {} x{}", layer, x_.size()));
  const RopeSpec& rope = kv_.Geometry(layer).rope;
  queries_.clear();
  for (size_t row = 0; row < x_.size(); ++row) {
    Vector q = Times(5000 + 4 * layer, x_[row], kHeads * kKeyDim);
    Vector key = Times(5001 + 4 * layer, x_[row], kHeads * kKeyDim);
    const Vector value = Times(5002 + 4 * layer, x_[row], kHeads * kValueDim);
    for (size_t head = 0; head < kHeads; ++head) {
      Rotate(rope, positions_[row], std::span(q).subspan(head * kKeyDim, kKeyDim));
      Rotate(rope, positions_[row], std::span(key).subspan(head * kKeyDim, kKeyDim));
    }
    queries_.push_back(std::move(q));
    std::transform(key.begin(), key.end(), k.begin() + static_cast<ptrdiff_t>(row * key.size()),
                   [](double value_of) { return static_cast<float>(value_of); });
    std::transform(value.begin(), value.end(), v.begin() + static_cast<ptrdiff_t>(row * value.size()),
                   [](double value_of) { return static_cast<float>(value_of); });
  }
  return absl::OkStatus();
}

absl::Status ToyModel::Keep(std::span<const uint32_t> kept) {
  calls_.push_back(fmt::format("keep {}", kept.size()));
  for (size_t i = 0; i < kept.size(); ++i) {
    x_[i] = x_[kept[i]];
    queries_[i] = queries_[kept[i]];
    positions_[i] = positions_[kept[i]];
  }
  x_.resize(kept.size());
  queries_.resize(kept.size());
  positions_.resize(kept.size());
  return absl::OkStatus();
}

absl::Status ToyModel::Finish(uint32_t layer) {
  calls_.push_back(fmt::format("finish {}", layer));
  std::vector<float> key(kHeads * kKeyDim);
  std::vector<float> value(kHeads * kValueDim);
  for (size_t row = 0; row < x_.size(); ++row) {
    Vector attended(kHeads * kValueDim, 0.0);
    Vector sums(kHeads, 0.0);
    for (uint32_t position = 0; position <= positions_[row]; ++position) {
      kv_.ReadKeys(layer, position, key.data());
      kv_.ReadValues(layer, position, value.data());
      for (size_t head = 0; head < kHeads; ++head) {
        double score = 0;
        for (size_t i = head * kKeyDim; i < (head + 1) * kKeyDim; ++i) {
          score += queries_[row][i] * static_cast<double>(key[i]);
        }
        const double weight = std::exp(score);
        sums[head] += weight;
        for (size_t i = head * kValueDim; i < (head + 1) * kValueDim; ++i) {
          attended[i] += weight * static_cast<double>(value[i]);
        }
      }
    }
    for (size_t i = 0; i < attended.size(); ++i) attended[i] /= sums[i / kValueDim];
    const Vector out = Times(5003 + 4 * layer, attended, kHidden);
    for (size_t i = 0; i < kHidden; ++i) x_[row][i] = std::tanh(x_[row][i] + out[i]);
  }
  return absl::OkStatus();
}

absl::Status ToyModel::Rewind() {
  calls_.push_back("rewind");
  if (!mark_.has_value()) return FailedPrecondition("nothing is marked");
  x_ = mark_->x;
  positions_ = mark_->positions;
  return absl::OkStatus();
}

ToyModel::Vector ToyModel::Times(uint64_t matrix, const Vector& x, size_t outputs) const {
  Vector y(outputs, 0.0);
  for (size_t o = 0; o < outputs; ++o) {
    for (size_t i = 0; i < x.size(); ++i) y[o] += Weight(matrix, o * x.size() + i) * x[i];
  }
  return y;
}

void ToyModel::Rotate(const RopeSpec& rope, uint32_t position, std::span<double> head) const {
  if (rope.kind == RopeKind::kNone) return;
  const size_t half = head.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double angle = position * std::pow(rope.theta, -static_cast<double>(i) / static_cast<double>(half));
    const double a = head[i];
    const double b = head[i + half];
    head[i] = a * std::cos(angle) - b * std::sin(angle);
    head[i + half] = b * std::cos(angle) + a * std::sin(angle);
  }
}

std::vector<double> ToyPrefill(const KvSpace& space, const KvLayout& kv, std::span<const Token> tokens) {
  const auto count = static_cast<uint32_t>(tokens.size());
  const KvRows rows = *KvRows::Over(space, kv, count);
  ToyModel model(space, kv, count);
  std::vector<uint32_t> positions(count);
  for (uint32_t i = 0; i < count; ++i) positions[i] = i;
  model.Begin(tokens, positions).IgnoreError();
  for (uint32_t layer = 0; layer < rows.layers(); ++layer) {
    std::vector<float> k(count * rows.KeyWidth(layer));
    std::vector<float> v(count * rows.ValueWidth(layer));
    model.Project(layer, k, v).IgnoreError();
    for (uint32_t i = 0; i < count; ++i) {
      rows.WriteKeys(layer, i, k.data() + i * rows.KeyWidth(layer));
      rows.WriteValues(layer, i, v.data() + i * rows.ValueWidth(layer));
    }
    model.Finish(layer).IgnoreError();
  }
  return model.Output();
}

}  // namespace kdn
