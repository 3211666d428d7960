#include "integration/engine/options.h"

#include <CLI/CLI.hpp>
#include <map>
#include <utility>

#include "kdn-client/transport.h"
#include "storage/base/command_line.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn::engine {
namespace {

constexpr uint32_t kMaxGenerate = 1 << 20;

struct RawOptions {
  EngineOptions options;
  std::string store = "none";
  std::string kv_dtype = "bf16";
  int64_t deadline_ms = 5000;
};

void Declare(CLI::App& app, RawOptions& raw) {
  EngineOptions& o = raw.options;
  app.get_formatter()->column_width(44);
  const auto add = [&](const char* name, auto& value, const char* type, const char* help) {
    return app.add_option(name, value, help)->type_name(type);
  };
  CLI::Option* model = add("--model", o.model_directory, "DIR", "Model in Hugging Face layout");
  add("--random-model", o.random_model, "SPEC",
      "Seeded random weights: layers=8,hidden=512,heads=8,kv_heads=4,intermediate=1376,vocab=260,seed=1")
      ->excludes(model);
  add("--prompt-file", o.prompt_file, "FILE", "Text to prefill; a byte is a token")->required();
  add("--max-prompt-tokens", o.max_prompt_tokens, "N", "Tokens of it to take; 0: all")->capture_default_str();
  app.add_flag("--bos", o.bos, "Begin the prompt with the BOS token");
  add("--generate", o.generate, "N", "Tokens to decode greedily after the prompt")
      ->check(CLI::Range(0u, kMaxGenerate))
      ->capture_default_str();
  CLI::Option* node = add("--node", o.node, "HOST:PORT", "KDN node to use; none: compute everything");
  add("--placement", o.placement, "HOST:PORT,...", "Placement daemons of a KDN cluster to use instead")
      ->delimiter(',')
      ->expected(1)
      ->excludes(node);
  add("--tenant", o.tenant, "NAME", "Name to show the cache's operators; no secret");
  add("--store", raw.store, "ACK", "Store what was missing: none, memory or durable")->capture_default_str();
  add("--codec", o.prompt.codec, "NAME", "Codec to store with")->capture_default_str();
  add("--deadline-ms", raw.deadline_ms, "MS", "Longest wait for KDN before all else is computed")
      ->capture_default_str();
  add("--kv-dtype", raw.kv_dtype, "DTYPE", "KV cache: bf16, f16 or f32")->capture_default_str();
  add("--chunk-tokens", o.session.chunk_tokens, "N", "Tokens in a chunk and in a prefill step")->capture_default_str();
  add("--threads", o.session.threads, "N", "Threads to compute with; results do not depend on it")
      ->capture_default_str();
  app.add_flag("--json", o.json, "Report as one line of JSON");
  add("--logits-out", o.logits_out, "FILE", "Write the logits of every generated position, as floats");
}

absl::StatusOr<EngineOptions> Check(RawOptions raw) {
  EngineOptions& o = raw.options;
  if (o.model_directory.empty() && o.random_model.empty()) {
    return InvalidArgument("no model; give --model or --random-model");
  }
  static const std::map<std::string, std::optional<Ack>> kAcks = {
      {"none", std::nullopt}, {"memory", Ack::kMemory}, {"durable", Ack::kDurable}};
  static const std::map<std::string, DType> kDTypes = {
      {"bf16", DType::kBf16}, {"f16", DType::kF16}, {"f32", DType::kF32}};
  const auto ack = kAcks.find(raw.store);
  if (ack == kAcks.end()) return InvalidArgument("--store: '{}' is not none, memory or durable", raw.store);
  const auto dtype = kDTypes.find(raw.kv_dtype);
  if (dtype == kDTypes.end()) return InvalidArgument("--kv-dtype: '{}' is not bf16, f16 or f32", raw.kv_dtype);
  if (raw.deadline_ms <= 0) return InvalidArgument("--deadline-ms: {} is not above 0", raw.deadline_ms);
  o.prompt.store = ack->second;
  o.prompt.deadline = absl::Milliseconds(raw.deadline_ms);
  o.session.kv_dtype = dtype->second;
  if (o.node.empty() && o.placement.empty() && o.prompt.store.has_value()) {
    return InvalidArgument("--store: needs --node or --placement to store at");
  }
  if (!o.node.empty()) {
    if (absl::Status valid = ValidateTarget(o.node); !valid.ok()) return Annotate(valid, "--node");
  }
  for (const std::string& daemon : o.placement) {
    if (absl::Status valid = ValidateTarget(daemon); !valid.ok()) return Annotate(valid, "--placement");
  }
  if (absl::Status known = FindCodec(o.prompt.codec).status(); !known.ok()) return Annotate(known, "--codec");
  return o;
}

OptionsResult Exit(ProgramExit exit) { return {.text = std::move(exit.text), .exit_code = exit.exit_code}; }

}  // namespace

OptionsResult ParseOptions(int argc, const char* const* argv) {
  CLI::App app("kdn-engine: a small Llama engine that keeps its KV cache on KDN.", "kdn-engine");
  RawOptions raw;
  Declare(app, raw);
  if (std::optional<ProgramExit> exit = ReadCommandLine(app, argc, argv)) return Exit(*std::move(exit));
  absl::StatusOr<EngineOptions> options = Check(std::move(raw));
  if (!options.ok()) return Exit(BadFlags(app, options.status()));
  return {.options = *std::move(options)};
}

}  // namespace kdn::engine
