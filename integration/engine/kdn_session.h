// RunPrompt: a prompt through the engine with its KV cache on KDN, as any engine would use kdn-client.
//
//   KDN_ASSIGN_OR_RETURN(auto client, Client::Create(SpaceOf(*model, options), MakeRemoteTransport("127.0.0.1:7401")));
//   KDN_ASSIGN_OR_RETURN(PromptReport report, RunPrompt(*session, client.get(), prompt, {.store = Ack::kMemory}));
//
// Whatever KDN cannot deliver is computed: the logits are the same, bit for bit, with and without it.
//
// Thread-safety: one thread at a time for each session.
#ifndef KDN_INTEGRATION_ENGINE_KDN_SESSION_H_
#define KDN_INTEGRATION_ENGINE_KDN_SESSION_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "integration/engine/session.h"
#include "integration/engine/space.h"  // IWYU pragma: export
#include "kdn-client/client.h"
#include "kdn-client/loading/loading_controller.h"
#include "kdn-client/usage/usage_reporter.h"
#include "storage/base/clock.h"

namespace kdn::engine {

// The cache's memory, as the client takes it. Valid as long as the cache.
ContiguousKv ViewOf(KvCache& kv);

struct PromptOptions {
  absl::Duration deadline = absl::Seconds(5);  // for lookup and fetch together
  absl::Duration store_deadline = absl::Seconds(60);
  std::optional<Ack> store = std::nullopt;  // none: keep nothing
  std::string codec = "zstd";
  // What of the prefix is fetched and what is computed: all that is held is fetched first, or, with a controller,
  // whatever is quicker. It outlives the call.
  LoadingController* controller = nullptr;
  // Is told how long computing took; it outlives the call.
  UsageReporter* usage = nullptr;
};

struct PromptReport {
  uint32_t prompt_tokens = 0;
  uint32_t reused_tokens = 0;    // put into the cache from KDN
  uint32_t computed_tokens = 0;  // the rest; at least the last token

  // What the first logits took, from having the tokens: lookup, fetch and prefill.
  absl::Duration time_to_first_token;
  absl::Duration lookup;
  absl::Duration fetch;  // with a controller: how long the engine waited for it
  absl::Duration prefill;
  absl::Duration store;  // after the first logits

  size_t chunks_found = 0;             // of the prompt's front, by the lookup
  size_t chunks_fetched = 0;           // asked for; all but those that a miss tells of were used
  std::vector<TierKind> tiers;         // of every chunk that was used
  std::vector<Miss> misses;            // of chunks that were looked up or fetched in vain; at most one of the lookup's
  uint64_t encoded_bytes_fetched = 0;  // as they came over the wire
  uint64_t raw_bytes_fetched = 0;
  size_t chunks_stored = 0;                  // acknowledged
  std::vector<absl::Status> store_failures;  // one per chunk that was not
  uint64_t encoded_bytes_stored = 0;
  uint64_t raw_bytes_stored = 0;
  std::string why;  // what the controller has to say
};

// Runs `prompt` from an empty cache: looks it up, fetches what is held, computes the rest, and stores the whole chunks
// that were missing. The last token is always computed, for its logits. `client` may be null: then all is computed.
// Errors are the session's and misuse of the client; KDN being away or wrong is in the report.
absl::StatusOr<PromptReport> RunPrompt(Session& session, Client* client, std::span<const Token> prompt,
                                       const PromptOptions& options, const Clock& clock = Clock::Real());

// The KV of `tokens` from a session that is thrown away: for benchmarks that need real KV.
absl::StatusOr<KvCache> PrefillKv(std::shared_ptr<const Model> model, std::span<const Token> tokens, DType dtype,
                                  uint32_t threads = 2);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_KDN_SESSION_H_
