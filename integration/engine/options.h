// Flags of kdn-engine, checked before anything is loaded.
//
//   OptionsResult parsed = ParseOptions(argc, argv);
//   if (!parsed.options) { fmt::print("{}", parsed.text); return parsed.exit_code; }
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_OPTIONS_H_
#define KDN_INTEGRATION_ENGINE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "integration/engine/kdn_session.h"
#include "integration/engine/session.h"

namespace kdn::engine {

struct EngineOptions {
  std::string model_directory;  // exactly one of these two is given
  std::string random_model;
  std::string prompt_file;
  uint32_t max_prompt_tokens = 0;  // 0: all
  uint32_t generate = 16;
  bool bos = false;
  // Where its KV cache is kept: a node ("host:port"), or a cluster by its placement daemons. Neither: without KDN.
  std::string node;
  std::vector<std::string> placement;
  std::string tenant;  // what operators see as this engine's tenant; empty: nothing
  PromptOptions prompt;
  SessionOptions session;  // its capacity is left to the prompt
  bool json = false;
  std::string logits_out;
};

struct OptionsResult {
  std::optional<EngineOptions> options = {};  // absent: print `text` and exit with `exit_code`
  std::string text = {};                      // help (exit code 0), or what is wrong, in one line (2)
  int exit_code = 0;
};

OptionsResult ParseOptions(int argc, const char* const* argv);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_OPTIONS_H_
