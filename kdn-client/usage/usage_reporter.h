// UsageReporter: tells a node what an engine does with a space, so that operators see its model's and tenant's names,
// how much computing the cache saved, and what blending is worth (docs/operations.md, "Analytics").
//
//   auto usage = UsageReporter::Start({.space = space, .tenant = "acme"}, NodeUsageSink("127.0.0.1:7401"));
//   (*usage)->Prefilled(tokens, elapsed);                        // after every prefill of the engine …
//   (*usage)->Blended(BlendCountsOf(report, runs, segments));        // … and every blend
//   (kdn-client/blend/blend_usage.h)
//
// It adds up, and sends every few seconds, in a thread of its own and over connections of its own. Nothing that happens
// to reports reaches the engine: a node that is away costs it nothing, and what cannot be delivered is dropped in the
// end. Reports are counted at most once: one whose answer was lost is not sent again.
//
// An engine without nodes (MakeEmbeddedTransport) needs no reporter, or gives one its process's recorder
// (RecorderUsageSink).
//
// Thread-safety: all methods may be called from any thread. Prefilled and Blended take a lock that nobody holds for
// longer than a few additions.
#ifndef KDN_KDN_CLIENT_USAGE_USAGE_REPORTER_H_
#define KDN_KDN_CLIENT_USAGE_USAGE_REPORTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/usage/usage_outbox.h"
#include "kdn-client/usage/usage_sink.h"
#include "storage/analytics/blend_counts.h"
#include "storage/base/mutex.h"
#include "storage/format/kv_space.h"

namespace kdn {

class UsageReporter {
 public:
  struct Options {
    KvSpace space;
    // What people call the tenant; empty: nothing. Operators and whoever reads metrics see it, so it must not be the
    // space's tenant_salt, or have it within.
    std::string tenant = {};
    absl::Duration interval = absl::Seconds(5);  // between reports
    absl::Duration timeout = absl::Seconds(1);   // of one
  };
  // INVALID_ARGUMENT naming the option: a space that ValidateSpace refuses, a tenant that is too long, is not printable
  // ASCII, or gives the salt away, times that are not positive.
  static absl::StatusOr<std::unique_ptr<UsageReporter>> Start(const Options& options, std::shared_ptr<UsageSink> sink);

  // Sends what there is, for at most two timeouts.
  ~UsageReporter();
  UsageReporter(const UsageReporter&) = delete;
  UsageReporter& operator=(const UsageReporter&) = delete;

  // The engine computed so many tokens of a prompt in `elapsed`, without waiting for anything. Less than a chunk says
  // nothing of how fast it computes text, and is left out of that.
  void Prefilled(uint64_t tokens, absl::Duration elapsed);
  // Of one prompt, or of several.
  void Blended(const BlendCounts& counts);
  // A prompt was not blended.
  void Refused(BlendRefusal reason);

  // Sends what there is. False where that was not counted for certain, or not within `patience`.
  bool Flush(absl::Duration patience);

  struct Counts {
    uint64_t counted = 0;  // reports, by what became of them
    uint64_t kept = 0;     // for the next one
    uint64_t lost = 0;
    absl::Status last_failure = {};
  };
  Counts counts() const;

 private:
  UsageReporter(const Options& options, const UsageOutbox::Options& outbox, std::shared_ptr<UsageSink> sink);
  void Add(const UseReport& more);
  void Run();
  void SendOne() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint32_t least_tokens_;
  const absl::Duration timeout_;
  const std::shared_ptr<UsageSink> sink_;  // of the thread

  mutable Mutex mu_;
  CondVar changed_;
  UsageOutbox outbox_ ABSL_GUARDED_BY(mu_);
  Counts counts_ ABSL_GUARDED_BY(mu_);
  bool sending_ ABSL_GUARDED_BY(mu_) = false;
  bool flushing_ ABSL_GUARDED_BY(mu_) = false;  // what is pending is due
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: runs at once
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_USAGE_USAGE_REPORTER_H_
