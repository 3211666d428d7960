#include "integration/engine/attention.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kdn::engine {
namespace {
constexpr size_t kTileRows = 128;
constexpr size_t kKeyBlock = 256;

// A value that is not finite, at [key, dim] of a block.
struct Outlier {
  size_t key;
  size_t dim;
  float value;
};

// Puts 0 in the place of what is not finite: a product would carry it into rows that do not see it, as 0 × NaN is NaN.
std::vector<Outlier> TakeOutliers(float* values, size_t count, size_t dim) {
  std::vector<Outlier> outliers;
  if (!AnyNotFinite({values, count * dim})) return outliers;
  for (size_t i = 0; i < count * dim; ++i) {
    if (std::isfinite(values[i])) continue;
    outliers.push_back({.key = i / dim, .dim = i % dim, .value = values[i]});
    values[i] = 0;
  }
  return outliers;
}

}  // namespace

Attention::Attention(const ModelConfig& config, Workers& workers)
    : head_dim_(config.head_dim),
      heads_(config.heads),
      kv_heads_(config.kv_heads),
      group_(config.heads / config.kv_heads),
      workers_(workers),
      scratch_(workers.threads()) {
  for (Scratch& scratch : scratch_) {
    const size_t tile = kTileRows * group_;
    scratch.queries = FloatArray(tile * head_dim_);
    scratch.keys = FloatArray(kKeyBlock * head_dim_);
    scratch.values = FloatArray(kKeyBlock * head_dim_);
    scratch.scores = FloatArray(tile * kKeyBlock);
    scratch.out = FloatArray(tile * head_dim_);
    scratch.softmax.resize(tile);
  }
}

void Attention::Run(const float* queries, std::span<const uint32_t> positions, const KvCache& cache, uint32_t layer,
                    float* out) {
  const size_t tiles = (positions.size() + kTileRows - 1) / kTileRows;
  const size_t width = heads_ * head_dim_;
  workers_.Run(tiles * kv_heads_, [&](size_t piece, size_t worker) {
    // From the back: tiles there see the most keys, and a short piece at the end leaves nobody waiting for long.
    const size_t first = (tiles - 1 - piece / kv_heads_) * kTileRows;
    const Tile tile{.queries = queries + first * width,
                    .positions = positions.subspan(first, std::min(kTileRows, positions.size() - first)),
                    .kv_head = static_cast<uint32_t>(piece % kv_heads_),
                    .out = out + first * width};
    RunTile(tile, cache, layer, scratch_[worker]);
  });
}

void Attention::RunTile(const Tile& tile, const KvCache& cache, uint32_t layer, Scratch& scratch) const {
  // The heads of a group lie side by side in a row: row r of the tile becomes rows r · group … of the products.
  const size_t rows = tile.positions.size();
  const size_t row_width = heads_ * head_dim_;
  const size_t width = group_ * head_dim_;
  const size_t offset = tile.kv_head * width;
  const size_t stacked = rows * group_;
  for (size_t r = 0; r < rows; ++r) {
    std::memcpy(scratch.queries.data() + r * width, tile.queries + r * row_width + offset, width * sizeof(float));
  }
  std::fill_n(scratch.softmax.begin(), stacked, SoftmaxState{});
  std::fill_n(scratch.out.data(), stacked * head_dim_, 0.0f);

  const size_t keys_end = size_t{tile.positions.back()} + 1;
  const size_t head_offset = tile.kv_head * head_dim_ * DTypeSize(cache.dtype());
  size_t first_row = 0;
  for (size_t begin = 0; begin < keys_end; begin += kKeyBlock) {
    while (tile.positions[first_row] < begin) ++first_row;
    const size_t count = std::min(kKeyBlock, keys_end - begin);
    const size_t at = begin * cache.RowBytes() + head_offset;
    ToFloatRows(cache.dtype(), cache.k(layer) + at, cache.RowBytes(), count, head_dim_, scratch.keys.data());
    ToFloatRows(cache.dtype(), cache.v(layer) + at, cache.RowBytes(), count, head_dim_, scratch.values.data());
    TakeBlock(tile, first_row, begin, count, scratch);
  }
  for (size_t i = 0; i < stacked; ++i) {
    Scale({scratch.out.data() + i * head_dim_, head_dim_}, 1.0f / scratch.softmax[i].sum);
  }
  for (size_t r = 0; r < rows; ++r) {
    std::memcpy(tile.out + r * row_width + offset, scratch.out.data() + r * width, width * sizeof(float));
  }
}

void Attention::TakeBlock(const Tile& tile, size_t first_row, size_t begin, size_t count, Scratch& scratch) const {
  const size_t first = first_row * group_;
  const size_t stacked = tile.positions.size() * group_;
  const auto m = static_cast<blasint>(stacked - first);
  const auto n = static_cast<blasint>(count);
  const auto d = static_cast<blasint>(head_dim_);
  constexpr auto kBlock = static_cast<blasint>(kKeyBlock);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  const bool all_see_all = size_t{tile.positions[first_row]} + 1 >= begin + count;
  const std::vector<Outlier> outliers =
      all_see_all ? std::vector<Outlier>() : TakeOutliers(scratch.values.data(), count, head_dim_);
  const auto visible = [&](size_t i) { return std::min(count, size_t{tile.positions[i / group_]} + 1 - begin); };

  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, d, scale, scratch.queries.data() + first * head_dim_, d,
              scratch.keys.data(), d, 0.0f, scratch.scores.data() + first * kKeyBlock, kBlock);
  for (size_t i = first; i < stacked; ++i) {
    const float shrink = SoftmaxBlock(scratch.scores.data() + i * kKeyBlock, visible(i), kKeyBlock, scratch.softmax[i]);
    if (shrink != 1.0f) Scale({scratch.out.data() + i * head_dim_, head_dim_}, shrink);
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, d, n, 1.0f, scratch.scores.data() + first * kKeyBlock,
              kBlock, scratch.values.data(), d, 1.0f, scratch.out.data() + first * head_dim_, d);
  for (const Outlier& outlier : outliers) {
    for (size_t i = first; i < stacked; ++i) {
      if (outlier.key >= visible(i)) continue;
      scratch.out.data()[i * head_dim_ + outlier.dim] +=
          scratch.scores.data()[i * kKeyBlock + outlier.key] * outlier.value;
    }
  }
}

}  // namespace kdn::engine
