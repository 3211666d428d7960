#include "integration/engine/blend_samples.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "integration/engine/safetensors.h"
#include "integration/engine/tokenizer.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxSamplesBytes = uint64_t{256} << 20;

absl::StatusOr<std::vector<Token>> TokensOf(const Json& json, uint32_t vocab_size) {
  std::vector<Token> tokens;
  if (json.is_string()) {
    tokens = EncodeText(json.get_ref<const std::string&>());
  } else if (json.is_array()) {
    for (const Json& id : json) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
        return InvalidArgument("{} is not a token id", id.dump());
      }
      tokens.push_back(id.get<Token>());
    }
  } else {
    return InvalidArgument("it is neither a text nor an array of token ids");
  }
  for (const Token token : tokens) {
    if (token >= vocab_size) return InvalidArgument("token {} is outside the vocabulary of {}", token, vocab_size);
  }
  return tokens;
}

absl::StatusOr<BlendSample> ParseSample(std::string_view line, uint32_t vocab_size) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("it is not a JSON object");
  for (const auto& field : json.items()) {
    if (field.key() != "segments" && field.key() != "question" && field.key() != "answer") {
      return InvalidArgument("there is no field {:?}; the fields are segments, question and answer", field.key());
    }
  }
  const auto tokens_of = [&](const char* field) -> absl::StatusOr<std::vector<Token>> {
    if (!json.contains(field)) return InvalidArgument("it has no {}", field);
    absl::StatusOr<std::vector<Token>> tokens = TokensOf(json[field], vocab_size);
    if (!tokens.ok()) return Annotate(tokens.status(), field);
    return tokens;
  };
  if (!json.contains("segments") || !json["segments"].is_array()) {
    return InvalidArgument("it has no segments, which are an array");
  }
  BlendSample sample;
  for (const Json& segment : json["segments"]) {
    absl::StatusOr<std::vector<Token>> tokens = TokensOf(segment, vocab_size);
    if (tokens.ok() && tokens->empty()) tokens = InvalidArgument("it has no tokens");
    if (!tokens.ok()) {
      return Annotate(tokens.status(), "segment " + std::to_string(sample.prompt.segments.size()));
    }
    sample.prompt.segments.push_back(*std::move(tokens));
  }
  KDN_ASSIGN_OR_RETURN(sample.prompt.question, tokens_of("question"));
  KDN_ASSIGN_OR_RETURN(sample.answer, tokens_of("answer"));
  return sample;
}

}  // namespace

absl::StatusOr<std::vector<BlendSample>> ParseBlendSamples(std::string_view text, uint32_t vocab_size) {
  std::vector<BlendSample> samples;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    absl::StatusOr<BlendSample> sample = ParseSample(line, vocab_size);
    if (!sample.ok()) return Annotate(sample.status(), "line " + std::to_string(number));
    samples.push_back(*std::move(sample));
  }
  if (samples.empty()) return InvalidArgument("there are no samples in it");
  return samples;
}

absl::StatusOr<std::vector<BlendSample>> ReadBlendSamples(const std::string& path, uint32_t vocab_size) {
  KDN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxSamplesBytes));
  absl::StatusOr<std::vector<BlendSample>> samples = ParseBlendSamples(text, vocab_size);
  if (!samples.ok()) return Annotate(samples.status(), path);
  return samples;
}

}  // namespace kdn::engine
