#include "integration/engine/weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/functional/function_ref.h"
#include "integration/engine/safetensors.h"
#include "storage/base/status.h"
#include "storage/format/digest.h"

namespace kdn::engine {
namespace {

using Shape = std::vector<uint64_t>;

constexpr uint64_t kMaxRandomWeights = uint64_t{1} << 32;
constexpr uint64_t kMaxIndexBytes = 64 << 20;

// Where tensors come from. Read is only called for what Check has let pass.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual absl::Status Check(const std::string& name, const Shape& shape) = 0;
  // Once all are checked: whether there is something else that the model's author must have meant to be used.
  virtual absl::Status CheckRest(const ModelConfig& config) = 0;
  virtual absl::Status Read(const std::string& name, const Shape& shape, std::span<float> out) = 0;
};

struct Part {
  std::string name;
  Shape shape;

  uint64_t Size() const {
    uint64_t size = 1;
    for (const uint64_t extent : shape) size *= extent;
    return size;
  }
};

// Calls `visit` for every array of the model with the tensors that are stacked in it.
absl::Status ForEachArray(const ModelConfig& config, Weights& weights,
                          absl::FunctionRef<absl::Status(FloatArray&, const std::vector<Part>&)> visit) {
  const uint64_t hidden = config.hidden_size;
  const uint64_t inner = config.intermediate_size;
  const uint64_t query = config.QueryWidth();
  const uint64_t kv = config.KvWidth();
  const uint64_t dim = config.head_dim;
  KDN_RETURN_IF_ERROR(visit(weights.embedding, {{"model.embed_tokens.weight", {config.vocab_size, hidden}}}));
  weights.layers.resize(config.layers);
  for (uint32_t i = 0; i < config.layers; ++i) {
    LayerWeights& layer = weights.layers[i];
    const std::string at = fmt::format("model.layers.{}.", i);
    KDN_RETURN_IF_ERROR(visit(layer.attention_norm, {{at + "input_layernorm.weight", {hidden}}}));
    KDN_RETURN_IF_ERROR(visit(layer.qkv, {{at + "self_attn.q_proj.weight", {query, hidden}},
                                          {at + "self_attn.k_proj.weight", {kv, hidden}},
                                          {at + "self_attn.v_proj.weight", {kv, hidden}}}));
    if (config.qkv_bias) {
      KDN_RETURN_IF_ERROR(visit(layer.qkv_bias, {{at + "self_attn.q_proj.bias", {query}},
                                                 {at + "self_attn.k_proj.bias", {kv}},
                                                 {at + "self_attn.v_proj.bias", {kv}}}));
    }
    if (config.qk_norm) {
      KDN_RETURN_IF_ERROR(visit(layer.q_norm, {{at + "self_attn.q_norm.weight", {dim}}}));
      KDN_RETURN_IF_ERROR(visit(layer.k_norm, {{at + "self_attn.k_norm.weight", {dim}}}));
    }
    KDN_RETURN_IF_ERROR(visit(layer.attention_out, {{at + "self_attn.o_proj.weight", {hidden, query}}}));
    KDN_RETURN_IF_ERROR(visit(layer.mlp_norm, {{at + "post_attention_layernorm.weight", {hidden}}}));
    KDN_RETURN_IF_ERROR(visit(
        layer.gate_up, {{at + "mlp.gate_proj.weight", {inner, hidden}}, {at + "mlp.up_proj.weight", {inner, hidden}}}));
    KDN_RETURN_IF_ERROR(visit(layer.down, {{at + "mlp.down_proj.weight", {hidden, inner}}}));
  }
  KDN_RETURN_IF_ERROR(visit(weights.final_norm, {{"model.norm.weight", {hidden}}}));
  if (config.tied_output) return absl::OkStatus();
  return visit(weights.output, {{"lm_head.weight", {config.vocab_size, hidden}}});
}

// Checks every tensor before it takes memory for any, so that a config that lies about its files costs nothing.
absl::StatusOr<Weights> ReadAll(const ModelConfig& config, TensorSource& source) {
  const auto check = [&](FloatArray&, const std::vector<Part>& parts) {
    for (const Part& part : parts) KDN_RETURN_IF_ERROR(source.Check(part.name, part.shape));
    return absl::OkStatus();
  };
  const auto read = [&](FloatArray& array, const std::vector<Part>& parts) {
    uint64_t size = 0;
    for (const Part& part : parts) size += part.Size();
    array = FloatArray(size);
    std::span<float> rest = array.span();
    for (const Part& part : parts) {
      KDN_RETURN_IF_ERROR(source.Read(part.name, part.shape, rest.first(part.Size())));
      rest = rest.subspan(part.Size());
    }
    return absl::OkStatus();
  };
  Weights weights;
  KDN_RETURN_IF_ERROR(ForEachArray(config, weights, check));
  KDN_RETURN_IF_ERROR(source.CheckRest(config));
  KDN_RETURN_IF_ERROR(ForEachArray(config, weights, read));
  return weights;
}

// The tensors of one or more safetensors files.
class FileSource final : public TensorSource {
 public:
  static absl::StatusOr<FileSource> Open(const std::string& directory) {
    FileSource source;
    const absl::StatusOr<std::string> index = ReadTextFile(directory + "/model.safetensors.index.json", kMaxIndexBytes);
    if (index.ok()) {
      KDN_RETURN_IF_ERROR(source.OpenShards(directory, *index));
    } else if (absl::IsNotFound(index.status())) {
      KDN_RETURN_IF_ERROR(source.OpenFile(directory, "model.safetensors").status());
    } else {
      return index.status();
    }
    return source;
  }

  absl::Status Check(const std::string& name, const Shape& shape) override {
    const auto it = home_.find(name);
    if (it == home_.end()) return NotFound("no tensor '{}' among the {} in the model's files", name, home_.size());
    checked_.insert(name);
    return it->second->CheckFloats(name, shape);
  }
  absl::Status CheckRest(const ModelConfig& config) override {
    for (const auto& [name, file] : home_) {
      // Old files hold frequencies, which config.json gives as well, and some a copy of a tied output head.
      if (name.ends_with(".rotary_emb.inv_freq") || (config.tied_output && name == "lm_head.weight")) continue;
      if (!checked_.contains(name)) {
        return InvalidArgument("tensor '{}' is no part of the model that config.json describes", name);
      }
    }
    return absl::OkStatus();
  }
  absl::Status Read(const std::string& name, const Shape& shape, std::span<float> out) override {
    return home_.find(name)->second->ReadFloats(name, shape, out);
  }

  std::string Revision(std::string_view config_text) const {
    std::string all(AsStringView(Sha256({AsBytes(config_text)})));
    for (const auto& [name, file] : files_) all += AsStringView(Sha256({file->file_bytes()}));
    return ChunkKey{Sha256({AsBytes("kdn/engine/files/1"), AsBytes(all)})}.ToHex();
  }

 private:
  absl::StatusOr<const SafetensorsFile*> OpenFile(const std::string& directory, const std::string& name) {
    KDN_ASSIGN_OR_RETURN(SafetensorsFile opened, SafetensorsFile::Open(directory + "/" + name));
    auto file = std::make_shared<const SafetensorsFile>(std::move(opened));
    for (const auto& [tensor, info] : file->tensors()) {
      if (!home_.emplace(tensor, file).second) {
        return InvalidArgument("{}/{}: tensor '{}' is in another file of the model, too", directory, name, tensor);
      }
    }
    files_[name] = file;
    return file.get();
  }

  absl::Status OpenShards(const std::string& directory, std::string_view index_text) {
    const std::string where = directory + "/model.safetensors.index.json";
    const auto index = nlohmann::json::parse(index_text, /*cb=*/nullptr, /*allow_exceptions=*/false);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
      return InvalidArgument("{}: there is no weight_map in it", where);
    }
    for (const auto& [tensor, shard] : index["weight_map"].items()) {
      const std::string name = shard.is_string() ? shard.get<std::string>() : "";
      if (name.empty() || name.find('/') != std::string::npos || name[0] == '.') {
        return InvalidArgument("{}: weight_map['{}'] is {}; it must name a file beside the index", where, tensor,
                               shard.dump());
      }
      if (!files_.contains(name)) KDN_RETURN_IF_ERROR(OpenFile(directory, name).status());
      if (!files_[name]->tensors().contains(tensor)) {
        return InvalidArgument("{}: weight_map says that '{}' is in {}, which does not have it", where, tensor, name);
      }
    }
    return absl::OkStatus();
  }

  std::map<std::string, std::shared_ptr<const SafetensorsFile>> files_;
  std::map<std::string, std::shared_ptr<const SafetensorsFile>, std::less<>> home_;  // by tensor
  std::set<std::string, std::less<>> checked_;
};

// A counter-based generator (the finaliser of SplitMix64): number i of a stream needs no number before it.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

class RandomSource final : public TensorSource {
 public:
  explicit RandomSource(uint64_t seed) : seed_(seed) {}

  absl::Status Check(const std::string&, const Shape& shape) override {
    total_ += Part{"", shape}.Size();
    if (total_ > kMaxRandomWeights) {
      return ResourceExhausted("random model: more than {} weights; give it fewer layers or a smaller width",
                               kMaxRandomWeights);
    }
    return absl::OkStatus();
  }

  absl::Status CheckRest(const ModelConfig&) override { return absl::OkStatus(); }

  absl::Status Read(const std::string& name, const Shape& shape, std::span<float> out) override {
    // The sum of four 16-bit uniforms has the variance 4 · (2^32 - 1) / 12.
    const double deviation = std::sqrt((4294967296.0 - 1.0) / 3.0);
    if (shape.size() == 2) {
      Draw(name, static_cast<float>(1.0 / (deviation * std::sqrt(static_cast<double>(shape[1])))), out);
    } else if (name.ends_with(".bias")) {
      Draw(name, static_cast<float>(0.5 / deviation), out);
    } else if (name.ends_with("q_norm.weight") || name.ends_with("k_norm.weight")) {
      Draw(name, static_cast<float>(0.25 / deviation), out);
      for (float& weight : out) weight += 1.0f;
    } else {
      std::ranges::fill(out, 1.0f);
    }
    return absl::OkStatus();
  }

 private:
  // Integers until the one rounded product, so no machine's libm has a say.
  void Draw(const std::string& name, float scale, std::span<float> out) const {
    uint64_t stream = Mix(seed_);
    for (const char c : name) stream = Mix(stream ^ static_cast<uint8_t>(c));
    constexpr int32_t kTwiceMean = 4 * 65535;
    for (size_t i = 0; i < out.size(); ++i) {
      const uint64_t bits = Mix(stream + i);
      const auto sum =
          static_cast<int32_t>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48));
      out[i] = static_cast<float>(2 * sum - kTwiceMean) * 0.5f * scale;
    }
  }

  const uint64_t seed_;
  uint64_t total_ = 0;
};

}  // namespace

absl::StatusOr<Weights> LoadWeights(const std::string& directory, const ModelConfig& config,
                                    std::string_view config_text) {
  KDN_ASSIGN_OR_RETURN(FileSource source, FileSource::Open(directory));
  absl::StatusOr<Weights> weights = ReadAll(config, source);
  if (!weights.ok()) return Annotate(weights.status(), directory);
  weights->revision = source.Revision(config_text);
  return weights;
}

absl::StatusOr<Weights> RandomWeights(const ModelConfig& config, uint64_t seed) {
  KDN_RETURN_IF_ERROR(ValidateConfig(config));
  RandomSource source(seed);
  KDN_ASSIGN_OR_RETURN(Weights weights, ReadAll(config, source));
  const std::string identity = fmt::format("kdn/engine/random/1 {} seed={}", CanonicalText(config), seed);
  weights.revision = ChunkKey{Sha256({AsBytes(identity)})}.ToHex();
  return weights;
}

}  // namespace kdn::engine
