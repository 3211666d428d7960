#include "bench/kv_quality.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "integration/engine/kv_cache.h"
#include "integration/engine/session.h"
#include "storage/base/status.h"
#include "storage/format/byte_io.h"

namespace kdn::bench {
namespace {

// A slab's rows in the cache.
uint8_t* CacheRows(engine::KvCache& kv, const SampleSlab& slab) {
  uint8_t* const first = slab.kind == SlabKind::kK ? kv.k(slab.hints.layer) : kv.v(slab.hints.layer);
  return first + slab.hints.first_token * kv.RowBytes();
}

// Decodes words of the engine's types; a half as its numbers say.
double ValueOf(DType dtype, const uint8_t* word) {
  if (dtype == DType::kF32) return LoadLe<float>(word);
  const uint32_t bits = LoadLe<uint16_t>(word);
  if (dtype == DType::kBf16) return std::bit_cast<float>(bits << 16);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const double mantissa = bits & 1023;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25));
}

struct SquaredError {
  double error = 0, signal = 0, max = 0;

  void Add(const SampleSlab& slab, std::span<const uint8_t> decoded) {
    const size_t word = DTypeSize(slab.shape.dtype);
    for (size_t i = 0; i < slab.raw.size(); i += word) {
      const double x = ValueOf(slab.shape.dtype, &slab.raw[i]);
      const double difference = ValueOf(slab.shape.dtype, &decoded[i]) - x;
      signal += x * x;
      error += difference * difference;
      max = std::max(max, std::abs(difference));
    }
  }
  double Relative() const { return signal == 0 ? 0 : std::sqrt(error / signal); }
};

// log(sum(exp(logits))).
double LogSumExp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

double KlDivergence(std::span<const float> p, std::span<const float> q) {
  const double p_norm = LogSumExp(p), q_norm = LogSumExp(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i] - p_norm) * ((p[i] - p_norm) - (q[i] - q_norm));
  return kl;
}

size_t Likeliest(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

absl::StatusOr<KvSample> KvSample::Take(const std::shared_ptr<const engine::Model>& model,
                                        std::span<const Token> tokens, const SampleOptions& options) {
  if (tokens.size() < size_t{options.prefix} + options.following) {
    return InvalidArgument("{} tokens of text are too few for a prefix of {} and {} that follow", tokens.size(),
                           options.prefix, options.following);
  }
  KvSample sample;
  sample.model_ = model;
  sample.options_ = options;
  const auto following = tokens.subspan(options.prefix, options.following);
  sample.following_.assign(following.begin(), following.end());
  KDN_ASSIGN_OR_RETURN(const auto session,
                       engine::Session::Create(model, {.kv_dtype = options.dtype,
                                                       .chunk_tokens = options.chunk_tokens,
                                                       .capacity = options.prefix + options.following}));
  KDN_RETURN_IF_ERROR(session->Append(tokens.first(options.prefix)));
  const engine::ModelConfig& config = model->config();
  for (uint32_t first = 0; first < options.prefix; first += options.chunk_tokens) {
    for (uint32_t layer = 0; layer < config.layers; ++layer) {
      for (const SlabKind kind : {SlabKind::kK, SlabKind::kV}) {
        SampleSlab slab;
        slab.shape = {std::min(options.chunk_tokens, options.prefix - first), config.kv_heads, config.head_dim,
                      options.dtype};
        slab.kind = kind;
        slab.hints = {.layer = layer, .layer_count = config.layers, .first_token = first};
        const uint8_t* const rows = CacheRows(session->kv(), slab);
        slab.raw.assign(rows, rows + slab.shape.RawSize());
        sample.slabs_.push_back(std::move(slab));
      }
    }
  }
  KDN_RETURN_IF_ERROR(session->Append(sample.following_, &sample.raw_logits_));
  return sample;
}

uint64_t KvSample::raw_bytes() const {
  uint64_t bytes = 0;
  for (const SampleSlab& slab : slabs_) bytes += slab.raw.size();
  return bytes;
}

absl::StatusOr<std::vector<float>> KvSample::LogitsOver(std::span<const std::vector<uint8_t>> decoded) const {
  KDN_ASSIGN_OR_RETURN(const auto session,
                       engine::Session::Create(model_, {.kv_dtype = options_.dtype,
                                                        .chunk_tokens = options_.chunk_tokens,
                                                        .capacity = options_.prefix + options_.following}));
  for (size_t i = 0; i < slabs_.size(); ++i) {
    std::copy(decoded[i].begin(), decoded[i].end(), CacheRows(session->kv(), slabs_[i]));
  }
  session->kv().set_length(options_.prefix);
  std::vector<float> logits;
  KDN_RETURN_IF_ERROR(session->Append(following_, &logits));
  return logits;
}

absl::StatusOr<KvQuality> MeasureQuality(const KvSample& sample, const SlabTransform& transform) {
  KvQuality quality;
  std::vector<SquaredError> k(sample.layers()), v(sample.layers());
  std::vector<std::vector<uint8_t>> decoded;
  uint64_t encoded_bytes = 0;
  for (const SampleSlab& slab : sample.slabs()) {
    decoded.emplace_back(slab.raw.size());
    KDN_ASSIGN_OR_RETURN(const uint64_t size, transform(slab, decoded.back()));
    encoded_bytes += size;
    (slab.kind == SlabKind::kK ? k : v)[slab.hints.layer].Add(slab, decoded.back());
  }
  quality.ratio = static_cast<double>(sample.raw_bytes()) / static_cast<double>(encoded_bytes);
  for (uint32_t layer = 0; layer < sample.layers(); ++layer) {
    quality.k_relative_l2.push_back(k[layer].Relative());
    quality.v_relative_l2.push_back(v[layer].Relative());
    quality.max_abs_error = std::max({quality.max_abs_error, k[layer].max, v[layer].max});
  }
  KDN_ASSIGN_OR_RETURN(const std::vector<float> logits, sample.LogitsOver(decoded));
  const size_t positions = logits.size() / sample.vocab();
  size_t agreed = 0;
  for (size_t i = 0; i < positions; ++i) {
    const auto raw = std::span(sample.raw_logits()).subspan(i * sample.vocab(), sample.vocab());
    const auto with = std::span(logits).subspan(i * sample.vocab(), sample.vocab());
    quality.mean_kl += KlDivergence(raw, with) / static_cast<double>(positions);
    agreed += Likeliest(raw) == Likeliest(with) ? 1 : 0;
  }
  quality.top1_agreement = static_cast<double>(agreed) / static_cast<double>(positions);
  return quality;
}

absl::StatusOr<KvQuality> MeasureQuality(const KvSample& sample, const Codec& codec) {
  return MeasureQuality(sample, [&](const SampleSlab& slab, MutableByteSpan decoded) -> absl::StatusOr<uint64_t> {
    KDN_ASSIGN_OR_RETURN(const Buffer encoded, codec.Encode(slab.shape, slab.kind, slab.raw, slab.hints));
    KDN_RETURN_IF_ERROR(codec.Decode(slab.shape, slab.kind, {encoded.data(), encoded.size()}, decoded));
    return encoded.size();
  });
}

absl::StatusOr<std::shared_ptr<const engine::Model>> OutlierModel(std::string_view spec, float factor) {
  KDN_ASSIGN_OR_RETURN(engine::RandomModelSpec parsed, engine::ParseRandomModel(spec));
  parsed.config.model_id += "-outliers";
  KDN_ASSIGN_OR_RETURN(engine::Weights weights, engine::RandomWeights(parsed.config, parsed.seed));
  const engine::ModelConfig& config = parsed.config;
  const auto scale_row = [&](engine::LayerWeights& layer, size_t row, float by) {
    float* const first = layer.qkv.data() + row * config.hidden_size;
    for (size_t i = 0; i < config.hidden_size; ++i) first[i] *= by;
  };
  const uint32_t queries_per_key = config.heads / config.kv_heads;
  const uint32_t half = config.head_dim / 2;
  for (engine::LayerWeights& layer : weights.layers) {
    for (uint32_t head = 0; head < config.kv_heads; ++head) {
      // A rotation mixes channels c and c + half: outliers come in such pairs, mostly of low frequency.
      for (const uint32_t channel : {half - 1 - head % 3, half / 2 + head % 5}) {
        for (const uint32_t c : {channel, channel + half}) {
          scale_row(layer, config.QueryWidth() + head * config.head_dim + c, factor);
          for (uint32_t q = 0; q < queries_per_key; ++q) {
            scale_row(layer, (head * queries_per_key + q) * config.head_dim + c, 1 / factor);
          }
        }
      }
      scale_row(layer, config.QueryWidth() + config.KvWidth() + head * config.head_dim + head % config.head_dim, 2);
    }
  }
  weights.revision += "-outliers";
  return std::make_shared<const engine::Model>(config, std::move(weights));
}

}  // namespace kdn::bench
