// kdn-engine: runs one prompt through a model, with its KV cache on KDN when a node or a cluster is given, and reports.
#include <fmt/core.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "integration/engine/blas.h"
#include "integration/engine/engine_report.h"
#include "integration/engine/options.h"
#include "integration/engine/safetensors.h"
#include "integration/engine/tokenizer.h"
#include "kdn-client/cluster/cluster_transport.h"
#include "kdn-client/cluster/cluster_usage.h"
#include "placement/remote/placement_channel.h"
#include "placement/remote/topology_source.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

constexpr int kFailed = 1;
constexpr uint64_t kMaxPromptBytes = 64 << 20;

absl::StatusOr<std::shared_ptr<const Model>> OpenModel(const EngineOptions& options) {
  if (!options.model_directory.empty()) return Model::Load(options.model_directory);
  KDN_ASSIGN_OR_RETURN(const RandomModelSpec spec, ParseRandomModel(options.random_model));
  return Model::Random(spec);
}

absl::StatusOr<std::vector<Token>> ReadPrompt(const EngineOptions& options) {
  KDN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(options.prompt_file, kMaxPromptBytes));
  std::vector<Token> tokens = EncodeText(text, options.bos);
  if (options.max_prompt_tokens != 0 && tokens.size() > options.max_prompt_tokens) {
    tokens.resize(options.max_prompt_tokens);
  }
  if (tokens.empty()) return InvalidArgument("--prompt-file: {} is empty", options.prompt_file);
  return tokens;
}

struct Cache {
  std::shared_ptr<Transport> transport;  // null: without KDN
  std::shared_ptr<UsageSink> usage;
};

// A cluster that says nothing by the deadline is one whose chunks are all missed.
absl::StatusOr<Cache> OpenCache(const EngineOptions& options) {
  if (!options.node.empty()) {
    return Cache{.transport = MakeRemoteTransport(options.node), .usage = NodeUsageSink(options.node)};
  }
  if (options.placement.empty()) return Cache();
  KDN_ASSIGN_OR_RETURN(std::shared_ptr<PlacementChannel> placement, PlacementChannel::Open(options.placement));
  const std::shared_ptr<TopologySource> topology = FollowTopology(std::move(placement));
  if (topology->AwaitNewer(0, Clock::Real().Now() + options.prompt.deadline) == nullptr) {
    fmt::print(stderr, "kdn-engine: no placement daemon answers; everything is computed: {}\n",
               MessageOf(topology->Health()));
  }
  return Cache{.transport = MakeClusterTransport(topology), .usage = ClusterUsageSink(topology)};
}

std::string Sha256Hex(std::string_view bytes) { return ChunkKey{Sha256({AsBytes(bytes)})}.ToHex(); }

absl::StatusOr<EngineReport> Run(const EngineOptions& options, std::string& logits) {
  const Clock& clock = Clock::Real();
  EngineReport report;
  KDN_ASSIGN_OR_RETURN(const std::vector<Token> prompt, ReadPrompt(options));
  const absl::Time begin = clock.Now();
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, OpenModel(options));
  SessionOptions session_options = options.session;
  session_options.capacity = static_cast<uint32_t>(prompt.size()) + options.generate;
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Create(model, session_options));
  std::unique_ptr<Client> client;
  std::unique_ptr<UsageReporter> usage;
  PromptOptions prompt_options = options.prompt;
  KDN_ASSIGN_OR_RETURN(Cache cache, OpenCache(options));
  if (cache.transport != nullptr) {
    KDN_ASSIGN_OR_RETURN(client, Client::Create(SpaceOf(*model, session_options), std::move(cache.transport)));
    KDN_ASSIGN_OR_RETURN(
        usage, UsageReporter::Start({.space = client->space(), .tenant = options.tenant}, std::move(cache.usage)));
    prompt_options.usage = usage.get();
  }
  report.load = clock.Now() - begin;

  const auto keep_logits = [&] {
    const std::span<const float> row = session->logits();
    logits.append(reinterpret_cast<const char*>(row.data()), row.size_bytes());
  };
  KDN_ASSIGN_OR_RETURN(report.prompt, RunPrompt(*session, client.get(), prompt, prompt_options));
  keep_logits();
  report.first_logits_sha256 = Sha256Hex(logits);
  const absl::Time decode_begin = clock.Now();
  for (uint32_t i = 0; i < options.generate; ++i) {
    report.generated.push_back(session->Greedy());
    KDN_RETURN_IF_ERROR(session->Append({report.generated.back()}));
    keep_logits();
  }
  report.decode = clock.Now() - decode_begin;
  report.all_logits_sha256 = Sha256Hex(logits);
  return report;
}

absl::Status RunAndPrint(const EngineOptions& options) {
  std::string logits;
  KDN_ASSIGN_OR_RETURN(const EngineReport report, Run(options, logits));
  if (!options.logits_out.empty()) {
    std::ofstream out(options.logits_out, std::ios::binary | std::ios::trunc);
    out << logits;
    if (!out.flush()) return Unavailable("--logits-out: cannot write {}", options.logits_out);
  }
  fmt::print("{}", options.json ? ToJson(report).dump() + "\n" : ToText(report));
  return absl::OkStatus();
}

}  // namespace
}  // namespace kdn::engine

int main(int argc, char** argv) {
  kdn::engine::PickBlasKernels(argv);
  kdn::engine::OptionsResult parsed = kdn::engine::ParseOptions(argc, argv);
  if (!parsed.options.has_value()) {
    fmt::print(parsed.exit_code == 0 ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  // Standard output is the report's alone.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("kdn-engine"));
  spdlog::set_level(spdlog::level::warn);
  if (const absl::Status status = kdn::engine::RunAndPrint(*parsed.options); !status.ok()) {
    fmt::print(stderr, "kdn-engine: {}\n", kdn::MessageOf(status));
    return kdn::engine::kFailed;
  }
  return 0;
}
