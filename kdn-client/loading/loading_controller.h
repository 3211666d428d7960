// LoadingController: decides, request by request, what of a prompt's prefix an engine fetches and what it computes, so
// that with KDN a request is never slower than without it.
//
//   LoadingController controller;  // one for each engine and client; it learns from request to request
//   const auto load = controller.Start(client, prompt, kv, {});
//   PrefixLoad::Step step = load->Next();
//   for (; !step.done; step = load->Next()) {
//     engine.Prefill(prompt, step.begin, step.end);      // one chunk, after all that is before it
//     load->Computed();
//   }
//   engine.Prefill(prompt, step.begin, prompt.size());   // all before step.begin is in the cache
//   PrefixLoadReport report = load->Finish();            // after the first token: may wait for a lookup
//
// The engine computes chunks from the front while others are fetched from the back, until they meet (load_race.h): each
// side does what it is expected to be quicker at, from the engine's speed and the link's as they were seen so far, and
// chunks travel by the codec that suits the link. The last token of a prompt is always left to the engine, for its
// logits.
//
// Thread-safety: LoadingController's methods may be called from any thread; a PrefixLoad belongs to one.
#ifndef KDN_KDN_CLIENT_LOADING_LOADING_CONTROLLER_H_
#define KDN_KDN_CLIENT_LOADING_LOADING_CONTROLLER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-client/client.h"
#include "kdn-client/loading/load_race.h"
#include "storage/base/mutex.h"

namespace kdn {

struct PrefixLoadOptions {
  absl::Duration deadline = absl::Seconds(5);  // for lookup and fetches, all together
  // No codec that loses more is wished for, and nothing that has lost more is taken. Below kExact, lossy codecs are
  // wished for where the exact ones do not meet the aim.
  Fidelity least = Fidelity::kExact;
  // Within what time what is held should be in place; absent: a quarter of the time that it takes to compute it.
  std::optional<absl::Duration> aim = {};
};

struct PrefixLoadReport {
  PrefixHit hit;                // what the lookup said
  size_t loaded = 0;            // chunks that were fetched and used …
  size_t computed = 0;          // … and chunks of the prefix that Next gave to the engine
  std::vector<TierKind> tiers;  // of each that was fetched
  std::string codec;            // by which the last of them were wished for; empty: as they were stored
  std::vector<Miss> misses;     // the lookup's and the fetches'
  uint64_t encoded_bytes = 0;   // fetched
  uint64_t raw_bytes = 0;
  absl::Duration lookup;
  absl::Duration waited;  // by the engine, in Next
  absl::Status status;    // not OK: the destination does not fit; nothing was fetched
  std::string why;        // one sentence, for people
};

class PrefixLoad;

class LoadingController {
 public:
  // `patience`: by what part of the time to compute all of its prefix a request may be held up before anything is won;
  // by half of that before it is known whether anything is held.
  explicit LoadingController(double patience = 0.02) : patience_(patience) {}

  // `client`, `prompt` and the destination's memory outlive the load. Nothing else writes to the destination meanwhile,
  // but the engine to what it is told to compute.
  std::unique_ptr<PrefixLoad> Start(Client& client, std::span<const Token> prompt, KvLayout destination,
                                    const PrefixLoadOptions& options);

  // What the engine computed outside of a load is worth learning from as well.
  void ObservePrefill(uint32_t first_token, uint32_t tokens, absl::Duration elapsed);

  // What has been learned: the expected time to compute these tokens, and bytes of KV per second that fetches deliver.
  std::optional<absl::Duration> PrefillTime(uint32_t first_token, uint32_t tokens) const;
  std::optional<double> DeliveryRate() const;

 private:
  friend class PrefixLoad;

  const double patience_;
  mutable Mutex mu_;
  LoadModels models_ ABSL_GUARDED_BY(mu_);
};

class PrefixLoad {
 public:
  // Gives up what is still under way, and waits until nothing writes to the destination any more.
  ~PrefixLoad();
  PrefixLoad(const PrefixLoad&) = delete;
  PrefixLoad& operator=(const PrefixLoad&) = delete;

  struct Step {
    bool done = false;   // all tokens before `begin` are in the cache
    uint32_t begin = 0;  // otherwise: to be computed, up to `end`
    uint32_t end = 0;
  };
  // May wait for the network, for as long as that is expected to be quicker than to compute.
  Step Next();
  // The tokens of the last step have been computed.
  void Computed();

  // To be called once, when Next has said done.
  PrefixLoadReport Finish();

 private:
  friend class LoadingController;
  PrefixLoad(LoadingController& controller, Client& client, std::span<const Token> prompt, KvLayout destination,
             const PrefixLoadOptions& options);

  void Run();
  // Lets go of the mutex while it fetches.
  void LoadBatch(const LoadRace::Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(controller_.mu_);
  void Stop();

  LoadingController& controller_;
  Client& client_;
  const std::span<const Token> prompt_;
  const KvLayout destination_;
  const PrefixLoadOptions options_;
  const absl::Time started_;

  // The engine's thread's.
  std::chrono::steady_clock::time_point computing_since_;
  size_t computing_ = 0;

  CondVar changed_;
  std::optional<LoadRace> race_ ABSL_GUARDED_BY(controller_.mu_);
  bool stopping_ ABSL_GUARDED_BY(controller_.mu_) = false;
  PrefixLoadReport report_ ABSL_GUARDED_BY(controller_.mu_);

  std::thread thread_;  // last, so that it starts when all else is there
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_LOADING_LOADING_CONTROLLER_H_
