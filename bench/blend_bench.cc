// Blending: answers of models that need attention between segments, and time to first token with segments held by a
// node.
//
//   ./dev bench blend [--parts quality|text|discovery|speed] [--models DIR...] [--rounds N] [--node PATH]
//
// Quality is measured on the committed models of integration/blend_models, after calibrating each unaided on other
// prompts: by questions answered, and by the log-loss of text. Discovery is searching for stored segments in prompts.
// Speed is measured with random weights: full prefill and blends in turn, in each round; medians count. Writes
// bench/results/blend.json and blend.svg.

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/blend/blend_discovery.h"
#include "bench/blend/blend_quality.h"
#include "bench/blend/blend_speed.h"
#include "bench/blend/blend_text.h"
#include "bench/node_process.h"
#include "bench/report.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

// The committed models whose folders' names begin so, by name.
std::vector<std::string> ModelsOf(const std::string& task) {
  std::vector<std::string> models;
  for (const auto& entry : std::filesystem::directory_iterator(KDN_BLEND_MODELS)) {
    if (entry.path().filename().string().starts_with(task)) models.push_back(entry.path().string());
  }
  std::sort(models.begin(), models.end());
  return models;
}

int Main(int argc, char** argv) {
  std::vector<std::string> parts = {"quality", "text", "discovery", "speed"};
  BlendQualityOptions quality;
  quality.models = ModelsOf("tracking-");
  BlendTextOptions text;
  text.models = ModelsOf("bytes-");
  BlendSpeedOptions speed;
  speed.node = NodeProcess::DefaultProgram();
  CLI::App app("Quality and speed of blending.");
  app.add_option("--parts", parts, "what to measure")
      ->check(CLI::IsMember({"quality", "text", "discovery", "speed"}))
      ->capture_default_str();
  app.add_option("--models", quality.models, "folders of variable-tracking models")->capture_default_str();
  app.add_option("--text-models", text.models, "folders of byte-level language models")->capture_default_str();
  app.add_option("--prompts", quality.prompts, "prompts to measure answers on")->check(CLI::Range(1, 100000));
  app.add_option("--model", speed.model, "shape and seed of the random model whose speed is measured")
      ->capture_default_str();
  app.add_option("--rounds", speed.rounds, "rounds; medians count")->check(CLI::Range(1, 100));
  app.add_option("--queue", speed.queue, "prompts that wait at once; 0: no queue")->check(CLI::Range(0, 1000));
  app.add_option("--node", speed.node, "the kdn-node to run")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  Report report("blend");
  const auto wanted = [&](const char* part) { return std::find(parts.begin(), parts.end(), part) != parts.end(); };
  absl::Status status;
  if (wanted("quality")) status = MeasureBlendQuality(quality, report);
  if (status.ok() && wanted("text")) status = MeasureBlendText(text, report);
  if (status.ok() && wanted("discovery")) status = MeasureBlendDiscovery({}, report);
  if (status.ok() && wanted("speed")) {
    report.SetFact("speed model", speed.model);
    report.SetFact("rounds", speed.rounds);
    status = MeasureBlendSpeed(speed, report);
  }
  if (!status.ok()) {
    fmt::print(stderr, "bench blend: {}\n", MessageOf(status));
    return 1;
  }
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
