// EngineReport: what one run of kdn-engine did, for people and for programs.
//
// Thread-safety: values; pure functions.
#ifndef KDN_INTEGRATION_ENGINE_ENGINE_REPORT_H_
#define KDN_INTEGRATION_ENGINE_ENGINE_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "integration/engine/kdn_session.h"

namespace kdn::engine {

struct EngineReport {
  PromptReport prompt;
  std::vector<Token> generated;
  std::string first_logits_sha256;  // of the bytes of the logits after the prompt
  std::string all_logits_sha256;    // of those and of every decoded step, one after another
  absl::Duration load;              // not part of the time to first token
  absl::Duration decode;
};

// One flat object. Times are milliseconds; "tier" is memory, disk, mixed or none; "miss_reasons" counts by reason.
nlohmann::json ToJson(const EngineReport& report);

// A few lines.
std::string ToText(const EngineReport& report);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_ENGINE_REPORT_H_
