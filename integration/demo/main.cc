// kdn-demo: one node, one engine, one document; see demo.h.
#include <fmt/core.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>

#include "integration/demo/demo.h"
#include "storage/base/status.h"

namespace {

std::atomic<bool> cancelled{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

// The programs of the same build tree.
std::string InBuildTree(const char* path) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path().parent_path().parent_path() / path).string();
}

}  // namespace

int main(int argc, char** argv) {
  kdn::DemoOptions options;
  options.node = InBuildTree("kdn-node/kdn-node");
  options.engine = InBuildTree("integration/engine/kdn-engine");
  options.cancelled = &cancelled;
  CLI::App app("kdn-demo: prefills a document once, fetches its KV cache from a node, and compares.", "kdn-demo");
  app.add_option("--document", options.document, "English text")->required()->check(CLI::ExistingFile);
  app.add_option("--tokens", options.tokens, "Tokens of it to prefill; a byte is a token")
      ->check(CLI::Range(512u, 1u << 20))
      ->capture_default_str();
  app.add_option("--generate", options.generate, "Tokens to decode after it")->capture_default_str();
  app.add_option("--random-model", options.model, "Shape and seed of the model")->capture_default_str();
  app.add_option("--kv-dtype", options.kv_dtype, "KV cache: bf16, f16 or f32")->capture_default_str();
  app.add_option("--node", options.node, "kdn-node program");
  app.add_option("--engine", options.engine, "kdn-engine program");
  CLI11_PARSE(app, argc, argv);

  // The demo's own clean-up ends its processes and removes its files.
  struct sigaction action {};
  action.sa_handler = [](int) { cancelled = true; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);

  const absl::Status status = kdn::RunDemo(options, [](const std::string& line) {
    fmt::print("{}\n", line);
    std::fflush(stdout);
  });
  if (status.ok()) return 0;
  fmt::print(stderr, "kdn-demo: FAILED: {}\n", kdn::MessageOf(status));
  return 1;
}
