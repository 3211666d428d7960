// RunBlended: a prompt given as segments, each of which may have been stored by any engine that met it alone.
//
//   KDN_RETURN_IF_ERROR(StoreSegment(model, session_options, *client, document, {}).status());   // once a document
//   const SegmentedPrompt prompt = {.segments = {system, document, other}, .question = question};
//   KDN_ASSIGN_OR_RETURN(BlendRun run, RunBlended(*session, *client, prompt, {.profile = &profile}));
//
// Without a profile of the model's space that passed its gate nothing is blended: only what is exact is reused, and
// BlendRun::why says so. The same where a controller expects a full prefill to be no slower. What a blend computed is
// never stored.
//
// Thread-safety: one thread at a time for each session.
#ifndef KDN_INTEGRATION_ENGINE_BLEND_PROMPT_H_
#define KDN_INTEGRATION_ENGINE_BLEND_PROMPT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "integration/engine/session.h"
#include "kdn-client/blend/blend_profile.h"
#include "kdn-client/blend/blender.h"
#include "kdn-client/blend/ratio_controller.h"
#include "kdn-client/blend/segment_finder.h"
#include "kdn-client/blend/segment_source.h"
#include "kdn-client/client.h"
#include "kdn-client/usage/usage_reporter.h"

namespace kdn::engine {

struct SegmentedPrompt {
  std::vector<std::vector<Token>> segments = {};  // none of them empty
  std::vector<Token> question = {};               // at least a token

  std::vector<Token> Tokens() const;
  std::vector<PromptSegment> Segments() const;
};

struct BlendRunOptions {
  absl::Duration deadline = absl::Seconds(5);  // for lookup and fetches
  const BlendProfile* profile = nullptr;       // none: nothing is blended
  // Picks the ratio, at the profile's floor or above, and learns; none: the profile's schedule as it is.
  RatioController* controller = nullptr;
  Fidelity least = Fidelity::kExact;
  // Is told what came of it; it outlives the call.
  UsageReporter* usage = nullptr;
};

struct BlendRun {
  bool blended = false;
  double ratio = 1;  // of the last check
  std::string why;   // nothing was blended, or the controller's reason
  BlendReport blend;
  SegmentReport loaded;
  BlendCounts counts;        // of it, as they are reported; where nothing was blended by the profile, the reason
  absl::Duration discovery;  // the front's lookup, and the search
  absl::Duration time_to_first_token;
};

// Runs `prompt` by `schedule`, whatever a profile would say of it; for those that measure. `deadline` is for lookup and
// fetches. As RunBlended in all else; `blended`, `ratio` and `why` stay as they are.
absl::StatusOr<BlendRun> RunBySchedule(Session& session, Client& client, const SegmentedPrompt& prompt,
                                       const BlendSchedule& schedule, absl::Duration deadline = absl::Seconds(5));

// Runs `prompt` from an empty cache; afterwards the session has the prompt and the last token's logits.
// INVALID_ARGUMENT: a session that is not empty, a prompt without question; Blend's and SegmentSource's errors.
absl::StatusOr<BlendRun> RunBlended(Session& session, Client& client, const SegmentedPrompt& prompt,
                                    const BlendRunOptions& options);

// The same for a prompt of which nobody says where its segments are: its front is looked up, and behind it pieces of
// the sequences that `finder` knows are found, which is to be told of each sequence that is stored
// (SegmentFinder::Add). INVALID_ARGUMENT: a session that is not empty, an empty prompt; Blend's and SegmentSource's
// errors.
absl::StatusOr<BlendRun> RunDiscovered(Session& session, Client& client, SegmentFinder& finder,
                                       std::span<const Token> prompt, const BlendRunOptions& options);

// Computes the KV of `tokens` alone and stores all their chunks, the short last one included, exact as they are.
// `usage`, which may be null, is told how long computing took.
absl::StatusOr<StoreReport> StoreSegment(std::shared_ptr<const Model> model, const SessionOptions& options,
                                         Client& client, std::span<const Token> tokens, const StoreOptions& store,
                                         UsageReporter* usage = nullptr);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_BLEND_PROMPT_H_
