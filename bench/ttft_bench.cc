// Time to first token with KDN beside without: the reference engine, a kdn-node of its own process, and a link of so
// many bits per second between them (integration/link).
//
//   ./dev bench ttft [--model SPEC] [--tokens N...] [--links N...] [--codec NAME] [--rounds N] [--node PATH]
//
// Links are numbered from the slowest, 0, to loopback, 3; chunks are stored by the codec named, zstd unless told.
// In each round and over each link a prompt is computed without KDN, then run with nothing, half and all of it held on
// the node, then computed again; a ratio is to the mean of the two. Medians of the rounds are reported. One controller
// for each link learns from request to request, as an engine's would.

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "bench/report.h"
#include "integration/engine/kdn_session.h"
#include "integration/link/link_proxy.h"
#include "integration/process/child_process.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

struct Options {
  std::string model = "layers=8,hidden=512,heads=8,kv_heads=4,intermediate=1376,vocab=260,seed=1";
  std::vector<uint32_t> tokens = {256, 1024, 2560, 8000};
  std::vector<size_t> links = {0, 1, 2, 3};
  std::string codec = "zstd";
  uint32_t rounds = 3;
  std::string node = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../kdn-node/kdn-node").string();
};

struct Link {
  std::string name;
  LinkOptions options;
};

[[noreturn]] void Die(const absl::Status& status) {
  fmt::print(stderr, "bench ttft: {}\n", MessageOf(status));
  std::exit(1);
}
template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) Die(value.status());
  return *std::move(value);
}

std::vector<Link> Links() {
  const auto link = [](const char* name, uint64_t bits, absl::Duration latency) {
    return Link{name, {.up_bits_per_second = bits, .down_bits_per_second = bits, .latency = latency}};
  };
  return {link("10 Mbit/s, 10 ms", 10'000'000, absl::Milliseconds(10)),
          link("100 Mbit/s, 2 ms", 100'000'000, absl::Milliseconds(2)),
          link("1 Gbit/s, 0.2 ms", 1'000'000'000, absl::Microseconds(200)), link("loopback", 0, absl::ZeroDuration())};
}

class Node {
 public:
  explicit Node(const std::string& program) {
    const std::filesystem::path ports = directory_.path() / "ports";
    process_.emplace(Must(ChildProcess::Start({program, "--listen", "127.0.0.1:0", "--metrics-listen", "",
                                               "--memory-bytes", "2GiB", "--port-file", ports.string()},
                                              (directory_.path() / "log").string())));
    std::istringstream(Must(WaitForFile(ports, absl::Seconds(20), *process_))) >> target_;
  }
  const std::string& target() const { return target_; }

 private:
  TemporaryDirectory directory_{"kdn-bench-ttft-"};
  std::optional<ChildProcess> process_;
  std::string target_;
};

// What an engine has at one end of a link.
struct Path {
  std::string name;
  std::unique_ptr<LinkProxy> proxy;  // none: straight to the node
  std::unique_ptr<Client> client;
  std::unique_ptr<LoadingController> controller = std::make_unique<LoadingController>();
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        model_(Must(engine::Model::Random(Must(engine::ParseRandomModel(options.model))))),
        node_(options.node) {
    for (const size_t link : options.links) paths_.push_back(MakePath(Links()[link]));
  }

  void Run(Report& report) {
    for (const uint32_t tokens : options_.tokens) {
      for (const uint32_t share : kShares) Hold(tokens, share);
    }
    WarmUp();
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (const uint32_t tokens : options_.tokens) Round(tokens);
    }
    Summarise(report);
  }

 private:
  static constexpr uint32_t kShares[] = {0, 50, 100};
  static constexpr uint32_t kChunkTokens = 256;

  struct Cell {
    std::vector<double> ratio, with, without, loaded;
    std::string why;
  };
  struct CellId {
    uint32_t tokens;
    uint32_t share;
    size_t path;
    auto operator<=>(const CellId&) const = default;  // NOLINT(modernize-use-nullptr): a false alarm
  };

  Path MakePath(const Link& link) const {
    Path path;
    path.name = link.name;
    std::string target = node_.target();
    RemoteOptions remote;
    if (link.options.down_bits_per_second > 0) {
      path.proxy = Must(LinkProxy::Start(Must(ParseEndpoint(target)), link.options));
      target = path.proxy->endpoint().ToString();
      remote.shared_memory = false;  // which would go past the link
    }
    path.client =
        Must(Client::Create(engine::SpaceOf(*model_, SessionOptions(0)), MakeRemoteTransport(target, remote)));
    return path;
  }

  static engine::SessionOptions SessionOptions(uint32_t tokens) {
    return {.kv_dtype = DType::kBf16, .chunk_tokens = kChunkTokens, .capacity = std::max(tokens, 1U), .threads = 2};
  }

  // Of which `share` per cent are held; no two prompts have a chunk in common.
  std::vector<Token> Prompt(uint32_t tokens, uint32_t share) const {
    std::mt19937 random(tokens * 1000 + share);
    std::vector<Token> prompt(tokens);
    for (Token& token : prompt) token = static_cast<Token>(random() % model_->config().vocab_size);
    return prompt;
  }

  engine::PromptReport RunPrompt(std::span<const Token> prompt, Client* client,
                                 const engine::PromptOptions& options) const {
    const auto session = Must(engine::Session::Create(model_, SessionOptions(static_cast<uint32_t>(prompt.size()))));
    return Must(engine::RunPrompt(*session, client, prompt, options));
  }
  double Compute(std::span<const Token> prompt) const {
    return absl::ToDoubleSeconds(RunPrompt(prompt, nullptr, {}).time_to_first_token);
  }

  void Hold(uint32_t tokens, uint32_t share) const {
    const std::vector<Token> prompt = Prompt(tokens, share);
    const size_t held = size_t{tokens / kChunkTokens} * share / 100 * kChunkTokens;
    if (held == 0) return;
    const engine::PromptReport report = RunPrompt(std::span(prompt).first(held), paths_.back().client.get(),
                                                  {.store = Ack::kMemory, .codec = options_.codec});
    if (report.chunks_stored != held / kChunkTokens) Die(Internal("{} chunks were stored", report.chunks_stored));
  }

  // Opens connections, and lets each controller see its engine and its link once.
  void WarmUp() const {
    const std::vector<Token> prompt = Prompt(options_.tokens.back(), 100);
    const auto some = std::span(prompt).first(std::min<size_t>(prompt.size(), 4 * kChunkTokens + 1));
    for (const Path& path : paths_) {
      for (int i = 0; i < 2; ++i) RunPrompt(some, path.client.get(), {.controller = path.controller.get()});
    }
  }

  void Round(uint32_t tokens) {
    const std::vector<Token> baseline = Prompt(tokens, 0);
    double before = Compute(baseline);
    for (size_t path = 0; path < paths_.size(); ++path) {
      std::map<CellId, engine::PromptReport> reports;
      for (const uint32_t share : kShares) {
        const std::vector<Token> prompt = Prompt(tokens, share);
        reports.emplace(CellId{tokens, share, path},
                        RunPrompt(prompt, paths_[path].client.get(), {.controller = paths_[path].controller.get()}));
      }
      const double after = Compute(baseline);
      for (const auto& [id, report] : reports) AddSample(cells_[id], report, (before + after) / 2);
      before = after;
    }
  }

  static void AddSample(Cell& cell, const engine::PromptReport& report, double without) {
    const double with = absl::ToDoubleSeconds(report.time_to_first_token);
    cell.ratio.push_back(with / without);
    cell.with.push_back(with);
    cell.without.push_back(without);
    cell.loaded.push_back(static_cast<double>(report.chunks_fetched));
    cell.why = report.why;
  }

  void Summarise(Report& report) const {
    double worst = 0;
    std::string worst_name;
    for (const auto& [id, cell] : cells_) {
      const double ratio = Quantile(cell.ratio, 0.5);
      report.AddRow({{"tokens", id.tokens},
                     {"held, %", id.share},
                     {"link", paths_[id.path].name},
                     {"with, ms", 1e3 * Quantile(cell.with, 0.5)},
                     {"without, ms", 1e3 * Quantile(cell.without, 0.5)},
                     {"ratio", ratio},
                     {"chunks loaded", Quantile(cell.loaded, 0.5)},
                     {"why", cell.why}});
      if (ratio > worst) {
        worst = ratio;
        worst_name = fmt::format("{} tokens, {} % held, {}", id.tokens, id.share, paths_[id.path].name);
      }
    }
    report.AddGoal({.name = "worst time to first token, with ÷ without (" + worst_name + ")",
                    .value = worst,
                    .unit = "x",
                    .goal = 1.03,
                    .better = Better::kLower});
    if (paths_.back().proxy != nullptr) return;
    const auto best = cells_.find(CellId{options_.tokens.back(), 100, paths_.size() - 1});
    report.AddGoal({.name = fmt::format("with ÷ without, {} tokens, all held, loopback", options_.tokens.back()),
                    .value = Quantile(best->second.ratio, 0.5),
                    .unit = "x",
                    .goal = 0.1,
                    .better = Better::kLower});
  }

  const Options options_;
  const std::shared_ptr<const engine::Model> model_;
  const Node node_;
  std::vector<Path> paths_;
  std::map<CellId, Cell> cells_;
};

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Time to first token with KDN beside without.");
  app.add_option("--model", options.model, "shape and seed of the model's random weights")->capture_default_str();
  app.add_option("--tokens", options.tokens, "lengths of prompts")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--links", options.links, "which links, from the slowest, 0, to loopback, 3")
      ->check(CLI::Range(size_t{0}, Links().size() - 1))
      ->capture_default_str();
  app.add_option("--codec", options.codec, "by which chunks are stored")->capture_default_str();
  app.add_option("--rounds", options.rounds, "rounds; medians count")->check(CLI::Range(1, 100));
  app.add_option("--node", options.node, "the kdn-node to run")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  Report report("ttft");
  report.SetFact("model", options.model);
  report.SetFact("rounds", options.rounds);
  report.SetFact("codec", options.codec);
  Bench(options).Run(report);
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
