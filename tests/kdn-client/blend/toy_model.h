// ToyModel: a BlendModel small enough to be worked out in the open: real attention with RoPE and a non-linear layer, in
// double precision, one row at a time. What it computes for a row depends on nothing but the rows it attends to, so
// that tests can say exactly what must be equal.
#ifndef KDN_TESTS_KDN_CLIENT_BLEND_TOY_MODEL_H_
#define KDN_TESTS_KDN_CLIENT_BLEND_TOY_MODEL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kdn-client/blend/blend_model.h"
#include "kdn-client/blend/kv_rows.h"
#include "kdn-client/kv_layout.h"
#include "storage/format/kv_space.h"

namespace kdn {

// Two heads of 4 keys and 6 values a layer; layers may differ in RoPE.
KvSpace ToySpace(uint32_t layers, DType dtype = DType::kF32);

// KV memory for a ToyModel, contiguous or in blocks of `block_tokens` that lie in no order.
class ToyMemory {
 public:
  ToyMemory(const KvSpace& space, uint32_t tokens, uint32_t block_tokens = 0);
  const KvLayout& layout() const { return layout_; }

 private:
  std::vector<std::vector<uint8_t>> tensors_;
  std::vector<int32_t> table_;
  KvLayout layout_;
};

class ToyModel final : public BlendModel {
 public:
  // Attends to `kv`, which has room for `tokens`.
  ToyModel(KvSpace space, const KvLayout& kv, uint32_t tokens);

  const KvSpace& space() const override { return space_; }
  uint32_t max_positions() const override { return 4096; }
  uint32_t vocab_size() const override { return 1000; }

  absl::Status Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) override;
  absl::Status Project(uint32_t layer, std::span<float> k, std::span<float> v) override;
  absl::Status Keep(std::span<const uint32_t> kept) override;
  absl::Status Finish(uint32_t layer) override;
  void Mark() override { mark_ = {.x = x_, .positions = positions_}; }
  absl::Status Rewind() override;

  // Of the last row, after the last layer.
  std::vector<double> Output() const { return x_.back(); }
  // What was asked for, as "begin 5", "project 0 x5", "keep 3", "finish 0", "mark", "rewind".
  const std::vector<std::string>& calls() const { return calls_; }

 private:
  using Vector = std::vector<double>;
  struct State {
    std::vector<Vector> x = {};
    std::vector<uint32_t> positions = {};
  };
  Vector Times(uint64_t matrix, const Vector& x, size_t outputs) const;
  void Rotate(const RopeSpec& rope, uint32_t position, std::span<double> head) const;

  const KvSpace space_;
  const KvRows kv_;
  std::vector<Vector> x_;
  std::vector<Vector> queries_;
  std::vector<uint32_t> positions_;
  std::optional<State> mark_;
  std::vector<std::string> calls_;
};

// Runs `tokens` from nothing through a ToyModel over `kv`, leaving their KV there; the last row's output.
std::vector<double> ToyPrefill(const KvSpace& space, const KvLayout& kv, std::span<const Token> tokens);

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_BLEND_TOY_MODEL_H_
