#include "integration/engine/kdn_session.h"

#include <algorithm>
#include <utility>

#include "storage/base/status.h"

namespace kdn::engine {
namespace {

// Chunks of the prompt that are in the cache, or will be, and where computing and storing begin.
struct Plan {
  PrefixHit hit;
  size_t reused = 0;      // chunks at the front that are in the cache
  size_t store_from = 0;  // first chunk that KDN lacks
};

absl::StatusOr<Plan> FetchPrefix(Session& session, Client& client, std::span<const Token> prompt,
                                 const PromptOptions& options, const Clock& clock, PromptReport& report) {
  Plan plan;
  const absl::Time begin = clock.Now();
  plan.hit = client.LookupPrefix(prompt, {.deadline = options.deadline});
  const absl::Time looked_up = clock.Now();
  report.lookup = looked_up - begin;
  report.chunks_found = plan.hit.hits;
  if (plan.hit.stopped_by.reason != MissReason::kNone) report.misses.push_back(plan.hit.stopped_by);

  // The last token is computed in any case: its logits are what comes next.
  const size_t usable = (prompt.size() - 1) / session.options().chunk_tokens;
  const std::span<const ChunkRef> wanted = plan.hit.HitChunks().first(std::min(plan.hit.hits, usable));
  plan.store_from = plan.hit.hits;
  if (wanted.empty()) return plan;

  KDN_ASSIGN_OR_RETURN(const FetchReport fetched,
                       client.Fetch(wanted, ViewOf(session.kv()), {.deadline = options.deadline - report.lookup}));
  report.fetch = clock.Now() - looked_up;
  report.chunks_fetched = wanted.size();
  report.encoded_bytes_fetched = fetched.encoded_bytes;
  report.raw_bytes_fetched = fetched.raw_bytes;
  plan.reused = fetched.ready;
  if (fetched.ready < wanted.size()) plan.store_from = fetched.ready;
  for (size_t i = 0; i < fetched.chunks.size(); ++i) {
    if (i < fetched.ready) report.tiers.push_back(fetched.chunks[i].tier);
    if (fetched.chunks[i].miss.reason != MissReason::kNone) report.misses.push_back(fetched.chunks[i].miss);
  }
  return plan;
}

// Computes and fetches the prefix side by side; returns how many chunks are in the cache then.
absl::StatusOr<size_t> LoadPrefix(Session& session, PrefixLoad& load, std::span<const Token> prompt) {
  PrefixLoad::Step step = load.Next();
  for (; !step.done; step = load.Next()) {
    KDN_RETURN_IF_ERROR(session.Append(prompt.subspan(step.begin, step.end - step.begin)));
    load.Computed();
  }
  return step.begin / session.options().chunk_tokens;
}

// What the load has to say, once it is over.
absl::Status TakeReport(PrefixLoadReport loaded, Plan& plan, PromptReport& report) {
  KDN_RETURN_IF_ERROR(loaded.status);
  report.lookup = loaded.lookup;
  report.fetch = loaded.waited;
  report.chunks_found = loaded.hit.hits;
  report.chunks_fetched = loaded.loaded;
  report.encoded_bytes_fetched = loaded.encoded_bytes;
  report.raw_bytes_fetched = loaded.raw_bytes;
  report.tiers = std::move(loaded.tiers);
  report.misses = std::move(loaded.misses);
  report.why = std::move(loaded.why);
  plan.store_from = loaded.hit.hits;
  plan.hit = std::move(loaded.hit);
  return absl::OkStatus();
}

absl::Status StoreMissed(Session& session, Client& client, const Plan& plan, const PromptOptions& options,
                         PromptReport& report) {
  const std::span<const ChunkRef> missed = std::span(plan.hit.chunks).subspan(plan.store_from);
  if (missed.empty()) return absl::OkStatus();
  KDN_ASSIGN_OR_RETURN(
      const StoreReport stored,
      client.Store(missed, ViewOf(session.kv()),
                   {.deadline = options.store_deadline, .ack = *options.store, .codec = options.codec}));
  report.chunks_stored = stored.Stored();
  report.encoded_bytes_stored = stored.encoded_bytes;
  report.raw_bytes_stored = stored.raw_bytes;
  for (const absl::Status& status : stored.chunks) {
    if (!status.ok()) report.store_failures.push_back(status);
  }
  return absl::OkStatus();
}

}  // namespace

ContiguousKv ViewOf(KvCache& kv) {
  ContiguousKv view;
  view.capacity_tokens = kv.capacity();
  for (uint32_t layer = 0; layer < kv.layers(); ++layer) {
    view.k.push_back(kv.k(layer));
    view.v.push_back(kv.v(layer));
  }
  return view;
}

absl::StatusOr<PromptReport> RunPrompt(Session& session, Client* client, std::span<const Token> prompt,
                                       const PromptOptions& options, const Clock& clock) {
  if (prompt.empty()) return InvalidArgument("prompt: it has no tokens");
  if (prompt.size() > session.kv().capacity()) {
    return ResourceExhausted("prompt: {} tokens; the KV cache has room for {}", prompt.size(), session.kv().capacity());
  }
  if (session.kv().length() != 0) {
    return FailedPrecondition("prompt: the session has {} tokens already; take a new one", session.kv().length());
  }
  PromptReport report;
  report.prompt_tokens = static_cast<uint32_t>(prompt.size());
  Plan plan;
  const absl::Time begin = clock.Now();
  std::unique_ptr<PrefixLoad> load;
  if (client != nullptr && options.controller != nullptr) {
    load = options.controller->Start(*client, prompt, ViewOf(session.kv()), {.deadline = options.deadline});
    KDN_ASSIGN_OR_RETURN(plan.reused, LoadPrefix(session, *load, prompt));
  } else if (client != nullptr) {
    KDN_ASSIGN_OR_RETURN(plan, FetchPrefix(session, *client, prompt, options, clock, report));
  }
  const uint32_t chunk_tokens = session.options().chunk_tokens;
  const auto in_place = static_cast<uint32_t>(plan.reused) * chunk_tokens;
  session.kv().set_length(in_place);
  const absl::Time prefill_begin = clock.Now();
  KDN_RETURN_IF_ERROR(session.Append(prompt.subspan(in_place)));
  const absl::Time first_token = clock.Now();
  report.time_to_first_token = first_token - begin;
  report.prefill = first_token - prefill_begin;
  // A few tokens cost more apiece than a chunk's.
  if (load != nullptr && prompt.size() - in_place >= chunk_tokens) {
    options.controller->ObservePrefill(in_place, static_cast<uint32_t>(prompt.size()) - in_place, report.prefill);
  }
  report.reused_tokens = in_place;
  if (load != nullptr) {
    KDN_RETURN_IF_ERROR(TakeReport(load->Finish(), plan, report));
    report.prefill = report.time_to_first_token - report.fetch;
    report.reused_tokens = static_cast<uint32_t>(report.chunks_fetched) * chunk_tokens;
  }
  report.computed_tokens = report.prompt_tokens - report.reused_tokens;
  if (options.usage != nullptr) options.usage->Prefilled(report.computed_tokens, report.prefill);
  if (client != nullptr && options.store.has_value()) {
    const absl::Time store_begin = clock.Now();
    KDN_RETURN_IF_ERROR(StoreMissed(session, *client, plan, options, report));
    report.store = clock.Now() - store_begin;
  }
  return report;
}

absl::StatusOr<KvCache> PrefillKv(std::shared_ptr<const Model> model, std::span<const Token> tokens, DType dtype,
                                  uint32_t threads) {
  const SessionOptions options{.kv_dtype = dtype, .capacity = static_cast<uint32_t>(tokens.size()), .threads = threads};
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Create(std::move(model), options));
  KDN_RETURN_IF_ERROR(session->Append(tokens));
  return std::move(session->kv());
}

}  // namespace kdn::engine
