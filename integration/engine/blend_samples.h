// ReadBlendSamples: sample prompts for calibration, one JSON object a line:
//
//   {"segments": ["the first document", [17, 4, 99]], "question": "What …?", "answer": " …"}
//
// Each text is given as a string, of which a byte is a token, or as token ids. Empty lines are skipped.
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_BLEND_SAMPLES_H_
#define KDN_INTEGRATION_ENGINE_BLEND_SAMPLES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "integration/engine/blend_trial.h"

namespace kdn::engine {

// INVALID_ARGUMENT naming the line and the field that is missing, unknown, or of another type, or the token id outside
// a vocabulary of `vocab_size`; and when there is no sample at all.
absl::StatusOr<std::vector<BlendSample>> ParseBlendSamples(std::string_view text, uint32_t vocab_size);

// The same of a file, of 256 MiB at most; errors name it.
absl::StatusOr<std::vector<BlendSample>> ReadBlendSamples(const std::string& path, uint32_t vocab_size);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_BLEND_SAMPLES_H_
