// bench_codec: every codec on KV that the reference engine computed from real text: ratio, speed per core, error of
// each layer, and what it does to the model's answers (kv_quality.h). Beside them: memcpy, zstd alone on the plain
// slab, and cachegen with the anchor tokens of the paper.
//
// Speeds are raw bytes per second of this thread's processor time, best of some rounds over all slabs: what one core
// does, on a machine that is busy with other things, too.
#include <fmt/core.h>
#include <time.h>
#include <zstd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/kv_quality.h"
#include "bench/report.h"
#include "integration/engine/blas.h"
#include "integration/engine/kernels.h"
#include "integration/engine/tokenizer.h"
#include "storage/base/status.h"
#include "storage/format/byte_io.h"

namespace kdn::bench {
namespace {

struct Options {
  std::string model = "layers=8,hidden=512,heads=8,kv_heads=8,seed=1";
  std::string text = KDN_BENCH_TEXT;
  float outlier_factor = 6;
  SampleOptions sample;
  int rounds = 7;
};

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Something that codes slabs.
struct Contender {
  std::string name;
  std::function<absl::StatusOr<Buffer>(const SampleSlab&)> encode;
  std::function<absl::Status(const SampleSlab&, ByteSpan encoded, MutableByteSpan raw)> decode;
};

Contender CodecContender(const Codec& codec) {
  return {std::string(codec.name()),
          [&codec](const SampleSlab& slab) { return codec.Encode(slab.shape, slab.kind, slab.raw, slab.hints); },
          [&codec](const SampleSlab& slab, ByteSpan encoded, MutableByteSpan raw) {
            return codec.Decode(slab.shape, slab.kind, encoded, raw);
          }};
}

Contender Memcpy() {
  return {"memcpy",
          [](const SampleSlab& slab) -> absl::StatusOr<Buffer> {
            Buffer copy(slab.raw.size());
            std::memcpy(copy.data(), slab.raw.data(), slab.raw.size());
            return copy;
          },
          [](const SampleSlab&, ByteSpan encoded, MutableByteSpan raw) {
            std::memcpy(raw.data(), encoded.data(), raw.size());
            return absl::OkStatus();
          }};
}

Contender ZstdAlone(int level) {
  return {fmt::format("zstd alone, level {}", level),
          [level](const SampleSlab& slab) -> absl::StatusOr<Buffer> {
            Buffer frame(ZSTD_compressBound(slab.raw.size()));
            const size_t size = ZSTD_compress(frame.data(), frame.size(), slab.raw.data(), slab.raw.size(), level);
            if (ZSTD_isError(size)) return Internal("zstd: {}", ZSTD_getErrorName(size));
            frame.Truncate(size);
            return frame;
          },
          [](const SampleSlab&, ByteSpan encoded, MutableByteSpan raw) {
            const size_t size = ZSTD_decompress(raw.data(), raw.size(), encoded.data(), encoded.size());
            return size == raw.size() ? absl::OkStatus() : Internal("zstd did not give the slab back");
          }};
}

// --- cachegen with anchors: one token in ten with 8 bits, the others as differences to it --------------------------

constexpr uint32_t kAnchorGroup = 10;

float LoadBf16(const uint8_t* word) { return std::bit_cast<float>(uint32_t{LoadLe<uint16_t>(word)} << 16); }

void StoreBf16(float x, uint8_t* word) {
  const auto bits = std::bit_cast<uint32_t>(x);
  StoreLe(static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16), word);
}

// A slab's anchors, and its other tokens.
struct AnchorSplit {
  SampleSlab anchors, others;
};

AnchorSplit Split(const SampleSlab& slab) {
  AnchorSplit split{slab, slab};
  split.others.hints.first_token = std::max(1U, slab.hints.first_token);
  split.anchors.raw.clear();
  split.others.raw.clear();
  const size_t row = slab.raw.size() / slab.shape.tokens;
  for (uint32_t t = 0; t < slab.shape.tokens; ++t) {
    SampleSlab& to = t % kAnchorGroup == 0 ? split.anchors : split.others;
    to.raw.insert(to.raw.end(), slab.raw.begin() + static_cast<ptrdiff_t>(t * row),
                  slab.raw.begin() + static_cast<ptrdiff_t>((t + 1) * row));
  }
  split.anchors.shape.tokens = static_cast<uint32_t>(split.anchors.raw.size() / row);
  split.others.shape.tokens = static_cast<uint32_t>(split.others.raw.size() / row);
  return split;
}

absl::StatusOr<uint64_t> CodeWithAnchors(const SampleSlab& slab, MutableByteSpan decoded) {
  KDN_ASSIGN_OR_RETURN(const Codec* const q8, FindCodec(CodecId::kQ8));
  KDN_ASSIGN_OR_RETURN(const Codec* const cachegen, FindCodec(CodecId::kCacheGen));
  AnchorSplit split = Split(slab);
  SampleSlab& anchors = split.anchors;
  SampleSlab& others = split.others;
  KDN_ASSIGN_OR_RETURN(const Buffer encoded_anchors,
                       q8->Encode(anchors.shape, anchors.kind, anchors.raw, anchors.hints));
  KDN_RETURN_IF_ERROR(
      q8->Decode(anchors.shape, anchors.kind, {encoded_anchors.data(), encoded_anchors.size()}, anchors.raw));
  // Differences to what the decoder will have; `sign` 1 takes the anchor away, -1 adds it again.
  const size_t row = slab.raw.size() / slab.shape.tokens;
  const auto add_anchors = [&](float sign) {
    for (size_t i = 0; i < others.raw.size(); i += 2) {
      const size_t anchor = i / row / (kAnchorGroup - 1) * row + i % row;
      StoreBf16(LoadBf16(&others.raw[i]) + sign * LoadBf16(&anchors.raw[anchor]), &others.raw[i]);
    }
  };
  add_anchors(-1);
  KDN_ASSIGN_OR_RETURN(const Buffer encoded, cachegen->Encode(others.shape, others.kind, others.raw, others.hints));
  KDN_RETURN_IF_ERROR(cachegen->Decode(others.shape, others.kind, {encoded.data(), encoded.size()}, others.raw));
  add_anchors(1);
  auto next_anchor = anchors.raw.begin();
  auto next_other = others.raw.begin();
  for (uint32_t t = 0; t < slab.shape.tokens; ++t) {
    auto& next = t % kAnchorGroup == 0 ? next_anchor : next_other;
    std::copy_n(next, row, decoded.begin() + static_cast<ptrdiff_t>(t * row));
    next += static_cast<ptrdiff_t>(row);
  }
  return encoded_anchors.size() + encoded.size();
}

// --- Measuring ------------------------------------------------------------------------------------------------------

struct Speed {
  double encode = 0, decode = 0;  // GB/s
  double ratio = 0;
};

absl::StatusOr<Speed> MeasureSpeed(std::span<const SampleSlab> slabs, const Contender& contender, int rounds) {
  double raw_bytes = 0;
  for (const SampleSlab& slab : slabs) raw_bytes += static_cast<double>(slab.raw.size());
  Speed speed;
  std::vector<uint8_t> raw;
  for (int round = 0; round < rounds; ++round) {
    std::vector<Buffer> encoded;
    double start = CpuSeconds();
    for (const SampleSlab& slab : slabs) {
      KDN_ASSIGN_OR_RETURN(Buffer payload, contender.encode(slab));
      encoded.push_back(std::move(payload));
    }
    speed.encode = std::max(speed.encode, raw_bytes / (CpuSeconds() - start) / 1e9);
    uint64_t bytes = 0;
    for (const Buffer& payload : encoded) bytes += payload.size();
    speed.ratio = raw_bytes / static_cast<double>(bytes);
    start = CpuSeconds();
    for (size_t i = 0; i < encoded.size(); ++i) {
      const SampleSlab& slab = slabs[i];
      raw.resize(slab.raw.size());
      KDN_RETURN_IF_ERROR(contender.decode(slab, {encoded[i].data(), encoded[i].size()}, raw));
    }
    speed.decode = std::max(speed.decode, raw_bytes / (CpuSeconds() - start) / 1e9);
  }
  return speed;
}

// `slabs` again in KV of `dtype` that no model made: normal values, each channel with a scale of its own, from 1/8
// to 8.
std::vector<SampleSlab> GaussianSlabs(std::span<const SampleSlab> slabs, DType dtype) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> exponent(-3, 3);
  std::vector<SampleSlab> result(slabs.begin(), slabs.end());
  for (SampleSlab& slab : result) {
    slab.shape.dtype = dtype;
    std::vector<float> scales(size_t{slab.shape.heads} * slab.shape.dim);
    for (float& scale : scales) scale = std::exp2(exponent(random));
    std::vector<float> values(slab.shape.tokens * scales.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = normal(random) * scales[i % scales.size()];
    slab.raw.resize(slab.shape.RawSize());
    engine::FromFloats(dtype, values, slab.raw.data());
  }
  return result;
}

// The exact codecs and zstd alone, on slabs whose logits are of no interest.
absl::Status RunLossless(const Options& options, const std::string& name, std::span<const SampleSlab> slabs,
                         Report& report) {
  std::vector<Contender> contenders = {ZstdAlone(1)};
  for (const Codec* const codec : AllCodecs()) {
    if (codec->fidelity() == Fidelity::kExact) contenders.push_back(CodecContender(*codec));
  }
  for (const Contender& contender : contenders) {
    KDN_ASSIGN_OR_RETURN(const Speed speed, MeasureSpeed(slabs, contender, options.rounds));
    report.AddRow({{"model", name},
                   {"codec", contender.name},
                   {"ratio", speed.ratio},
                   {"encode_gbps", speed.encode},
                   {"decode_gbps", speed.decode}});
  }
  return absl::OkStatus();
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

nlohmann::json Row(const std::string& model, const std::string& codec, const KvQuality& quality) {
  return {{"model", model},
          {"codec", codec},
          {"ratio", quality.ratio},
          {"logit_kl", quality.mean_kl},
          {"top1_agreement", quality.top1_agreement},
          {"k_relative_l2", Mean(quality.k_relative_l2)},
          {"v_relative_l2", Mean(quality.v_relative_l2)},
          {"max_abs_error", quality.max_abs_error}};
}

void AddLayerRows(const std::string& model, const std::string& codec, const KvQuality& quality, Report& report) {
  for (size_t layer = 0; layer < quality.k_relative_l2.size(); ++layer) {
    report.AddRow({{"model", model},
                   {"codec", codec},
                   {"layer", layer},
                   {"k_relative_l2", quality.k_relative_l2[layer]},
                   {"v_relative_l2", quality.v_relative_l2[layer]}});
  }
}

// The worst of all models, by codec.
struct Worst {
  double ratio = 1e9, encode = 1e9, decode = 1e9, kl = 0, kl_over_q4 = 0;
};

absl::Status RunModel(const Options& options, const std::string& name,
                      const std::shared_ptr<const engine::Model>& model, std::span<const Token> tokens,
                      std::map<std::string, Worst>& worst, Report& report) {
  KDN_ASSIGN_OR_RETURN(const KvSample sample, KvSample::Take(model, tokens, options.sample));
  for (const Contender& peer : {Memcpy(), ZstdAlone(1), ZstdAlone(3)}) {
    KDN_ASSIGN_OR_RETURN(const Speed speed, MeasureSpeed(sample.slabs(), peer, options.rounds));
    report.AddRow({{"model", name},
                   {"codec", peer.name},
                   {"ratio", speed.ratio},
                   {"encode_gbps", speed.encode},
                   {"decode_gbps", speed.decode}});
  }
  double q4_kl = 0;
  for (const Codec* const codec : AllCodecs()) {
    const std::string codec_name(codec->name());
    KDN_ASSIGN_OR_RETURN(const Speed speed, MeasureSpeed(sample.slabs(), CodecContender(*codec), options.rounds));
    KDN_ASSIGN_OR_RETURN(const KvQuality quality, MeasureQuality(sample, *codec));
    nlohmann::json row = Row(name, codec_name, quality);
    row["encode_gbps"] = speed.encode;
    row["decode_gbps"] = speed.decode;
    report.AddRow(std::move(row));
    if (codec->fidelity() != Fidelity::kExact) AddLayerRows(name, codec_name, quality, report);
    if (codec->id() == CodecId::kQ4) q4_kl = quality.mean_kl;
    Worst& w = worst[codec_name];
    w.ratio = std::min(w.ratio, quality.ratio);
    w.encode = std::min(w.encode, speed.encode);
    w.decode = std::min(w.decode, speed.decode);
    w.kl = std::max(w.kl, quality.mean_kl);
    if (q4_kl > 0) w.kl_over_q4 = std::max(w.kl_over_q4, quality.mean_kl / q4_kl);
  }
  KDN_ASSIGN_OR_RETURN(const KvQuality anchored, MeasureQuality(sample, CodeWithAnchors));
  report.AddRow(Row(name, "cachegen with anchors", anchored));
  return absl::OkStatus();
}

void AddGoals(std::map<std::string, Worst>& worst, Report& report) {
  const auto add = [&](const std::string& name, double value, const char* unit, double goal,
                       Better better = Better::kHigher) {
    report.AddGoal({.name = name, .value = value, .unit = unit, .goal = goal, .better = better});
  };
  add("lossless ratio", worst["zstd"].ratio, "x", 1.40);
  add("lossless decode", worst["zstd"].decode, "GB/s", 2.5);
  add("lossless encode", worst["zstd"].encode, "GB/s", 1.0);
  add("q8 ratio", worst["q8"].ratio, "x", 2.1);
  add("q8 logit KL", worst["q8"].kl, "nats", 1e-3, Better::kLower);
  add("q8 decode", worst["q8"].decode, "GB/s", 3.0);
  add("q4 ratio", worst["q4"].ratio, "x", 3.6);
  add("q4 decode", worst["q4"].decode, "GB/s", 3.0);
  add("cachegen ratio", worst["cachegen"].ratio, "x", 4.0);
  add("cachegen logit KL / q4's", worst["cachegen"].kl_over_q4, "x", 1.0, Better::kLower);
  add("cachegen decode", worst["cachegen"].decode, "GB/s", 0.5);
}

absl::Status Run(const Options& options, Report& report) {
  std::ifstream file(options.text, std::ios::binary);
  if (!file) return NotFound("--text {}: cannot be read", options.text);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::vector<Token> tokens = engine::EncodeText(text);
  report.SetFact("model", options.model);
  report.SetFact("text", std::filesystem::path(options.text).filename().string());
  report.SetFact("prefix_tokens", options.sample.prefix);
  report.SetFact("following_tokens", options.sample.following);
  std::map<std::string, Worst> worst;
  KDN_ASSIGN_OR_RETURN(const engine::RandomModelSpec spec, engine::ParseRandomModel(options.model));
  KDN_ASSIGN_OR_RETURN(std::shared_ptr<const engine::Model> model, engine::Model::Random(spec));
  SampleOptions f16_options = options.sample;
  f16_options.dtype = DType::kF16;
  KDN_ASSIGN_OR_RETURN(const KvSample f16, KvSample::Take(model, tokens, f16_options));
  KDN_RETURN_IF_ERROR(RunLossless(options, "random, f16", f16.slabs(), report));
  for (const DType dtype : {DType::kBf16, DType::kF16}) {
    KDN_RETURN_IF_ERROR(
        RunLossless(options, fmt::format("gaussian, {}", DTypeName(dtype)), GaussianSlabs(f16.slabs(), dtype), report));
  }
  KDN_RETURN_IF_ERROR(RunModel(options, "random", model, tokens, worst, report));
  KDN_ASSIGN_OR_RETURN(model, OutlierModel(options.model, options.outlier_factor));
  KDN_RETURN_IF_ERROR(RunModel(options, "outliers", model, tokens, worst, report));
  AddGoals(worst, report);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  engine::PickBlasKernels(argv);
  Options options;
  CLI::App app("Codecs on the reference engine's KV: ratio, speed, error, and what the model makes of it.");
  app.add_option("--model", options.model, "random model: key=value,… as kdn-engine takes it")->capture_default_str();
  app.add_option("--text", options.text, "a file of real text")->capture_default_str();
  app.add_option("--outlier-factor", options.outlier_factor, "how much larger the second model's outlier channels are")
      ->capture_default_str();
  app.add_option("--prefix", options.sample.prefix, "tokens whose KV is coded")->capture_default_str();
  app.add_option("--following", options.sample.following, "tokens whose logits are compared")->capture_default_str();
  app.add_option("--rounds", options.rounds, "rounds of which the fastest counts")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  Report report("codec");
  if (const absl::Status status = Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench_codec: {}\n", MessageOf(status));
    return 1;
  }
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
