// KvQuality: what a lossy codec does to a model's answers, measured on KV of the reference engine.
//
//   The engine prefills `prefix` tokens of real text. A codec encodes and decodes that KV chunk by chunk, the decoded
//   KV takes the place of the raw one, and the engine reads on: the logits of the following tokens are compared with
//   those over the raw KV.
//
//   KDN_ASSIGN_OR_RETURN(const KvSample sample, KvSample::Take(model, tokens, {.prefix = 1024, .following = 256}));
//   KDN_ASSIGN_OR_RETURN(const KvQuality quality, MeasureQuality(sample, codec));
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_KV_QUALITY_H_
#define KDN_BENCH_KV_QUALITY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "integration/engine/model.h"
#include "storage/format/chunk_key.h"
#include "storage/format/codec.h"

namespace kdn::bench {

struct SampleOptions {
  uint32_t prefix = 1024;  // tokens whose KV is coded
  uint32_t following = 256;
  uint32_t chunk_tokens = 256;
  DType dtype = DType::kBf16;
};

// One slab of the prefix: a layer's K or V of a chunk.
struct SampleSlab {
  SlabShape shape;
  SlabKind kind;
  EncodeHints hints;
  std::vector<uint8_t> raw;
};

class KvSample {
 public:
  // INVALID_ARGUMENT: fewer tokens than prefix and following.
  static absl::StatusOr<KvSample> Take(const std::shared_ptr<const engine::Model>& model, std::span<const Token> tokens,
                                       const SampleOptions& options);

  const std::vector<SampleSlab>& slabs() const { return slabs_; }
  uint64_t raw_bytes() const;

  // Logits [following, vocab] when the prefix's slabs are `decoded` (in order of slabs()).
  absl::StatusOr<std::vector<float>> LogitsOver(std::span<const std::vector<uint8_t>> decoded) const;
  const std::vector<float>& raw_logits() const { return raw_logits_; }
  uint32_t vocab() const { return model_->config().vocab_size; }
  uint32_t layers() const { return model_->config().layers; }

 private:
  std::shared_ptr<const engine::Model> model_;
  SampleOptions options_;
  std::vector<Token> following_;
  std::vector<SampleSlab> slabs_;
  std::vector<float> raw_logits_;
};

struct KvQuality {
  double ratio = 0;  // raw bytes / encoded bytes
  // |x - x'| / |x| over each layer.
  std::vector<double> k_relative_l2;
  std::vector<double> v_relative_l2;
  double max_abs_error = 0;
  double mean_kl = 0;  // nats, KL(raw || decoded) over the following positions
  double top1_agreement = 0;
};

// Encodes and decodes a slab: returns the encoded size.
using SlabTransform = std::function<absl::StatusOr<uint64_t>(const SampleSlab& slab, MutableByteSpan decoded)>;
absl::StatusOr<KvQuality> MeasureQuality(const KvSample& sample, const SlabTransform& transform);
absl::StatusOr<KvQuality> MeasureQuality(const KvSample& sample, const Codec& codec);

// A random model whose keys and values have outlier channels, as those of trained models do: in each head, some key
// channels are `factor` times as large (the queries as much smaller, so that attention stays what it was), and some
// value channels twice.
absl::StatusOr<std::shared_ptr<const engine::Model>> OutlierModel(std::string_view spec, float factor);

}  // namespace kdn::bench

#endif  // KDN_BENCH_KV_QUALITY_H_
