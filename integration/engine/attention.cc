#include "integration/engine/attention.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kdn::engine {
namespace {
constexpr size_t kTileRows = 128;
constexpr size_t kKeyBlock = 256;
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

void Attention::Run(const float* queries, size_t query_stride, size_t rows, uint32_t first_position,
                    const KvCache& cache, uint32_t layer, float* out) {
  const size_t tiles = (rows + kTileRows - 1) / kTileRows;
  workers_.Run(tiles * kv_heads_, [&](size_t piece, size_t worker) {
    const size_t first = piece / kv_heads_ * kTileRows;
    const Tile tile{.queries = queries + first * query_stride,
                    .query_stride = query_stride,
                    .rows = std::min(kTileRows, rows - first),
                    .first_position = first_position + static_cast<uint32_t>(first),
                    .kv_head = static_cast<uint32_t>(piece % kv_heads_),
                    .out = out + first * heads_ * head_dim_};
    RunTile(tile, cache, layer, scratch_[worker]);
  });
}

void Attention::RunTile(const Tile& tile, const KvCache& cache, uint32_t layer, Scratch& scratch) const {
  // The heads of a group lie side by side in a row: row r of the tile becomes rows r · group … of the products.
  const size_t width = group_ * head_dim_;
  const size_t offset = tile.kv_head * width;
  const size_t stacked = tile.rows * group_;
  for (size_t r = 0; r < tile.rows; ++r) {
    std::memcpy(scratch.queries.data() + r * width, tile.queries + r * tile.query_stride + offset,
                width * sizeof(float));
  }
  std::fill_n(scratch.softmax.begin(), stacked, SoftmaxState{});
  std::fill_n(scratch.out.data(), stacked * head_dim_, 0.0f);

  const size_t keys_end = size_t{tile.first_position} + tile.rows;
  const size_t head_offset = tile.kv_head * head_dim_ * DTypeSize(cache.dtype());
  const auto m = static_cast<blasint>(stacked);
  const auto d = static_cast<blasint>(head_dim_);
  constexpr auto kBlock = static_cast<blasint>(kKeyBlock);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  for (size_t begin = 0; begin < keys_end; begin += kKeyBlock) {
    const size_t count = std::min(kKeyBlock, keys_end - begin);
    const auto n = static_cast<blasint>(count);
    const size_t at = begin * cache.RowBytes() + head_offset;
    ToFloatRows(cache.dtype(), cache.k(layer) + at, cache.RowBytes(), count, head_dim_, scratch.keys.data());
    ToFloatRows(cache.dtype(), cache.v(layer) + at, cache.RowBytes(), count, head_dim_, scratch.values.data());
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, d, scale, scratch.queries.data(), d, scratch.keys.data(),
                d, 0.0f, scratch.scores.data(), kBlock);
    for (size_t i = 0; i < stacked; ++i) {
      const size_t visible = size_t{tile.first_position} + i / group_ + 1;  // keys at or before this row
      const size_t valid = std::min(count, visible > begin ? visible - begin : 0);
      const float shrink = SoftmaxBlock(scratch.scores.data() + i * kKeyBlock, valid, kKeyBlock, scratch.softmax[i]);
      if (shrink != 1.0f) Scale({scratch.out.data() + i * head_dim_, head_dim_}, shrink);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, d, n, 1.0f, scratch.scores.data(), kBlock,
                scratch.values.data(), d, 1.0f, scratch.out.data(), d);
  }
  for (size_t i = 0; i < stacked; ++i) {
    Scale({scratch.out.data() + i * head_dim_, head_dim_}, 1.0f / scratch.softmax[i].sum);
  }
  for (size_t r = 0; r < tile.rows; ++r) {
    std::memcpy(tile.out + r * heads_ * head_dim_ + offset, scratch.out.data() + r * width, width * sizeof(float));
  }
}

}  // namespace kdn::engine
