// UsageOutbox: what a UsageReporter has yet to send, and when it is to be sent. It does no waiting and no sending.
//
//   outbox.Add(more, now);
//   if (outbox.Due() <= now) { const UseReport report = outbox.Take(); outbox.Ended(report, Send(report), now); }
//
// The first report, which says what the space is, is due at once; counts an interval after the first of them; a failure
// is followed by pauses, each twice as long as the one before it. What was not counted is put back and goes with what
// has come since; what may have been counted is given up.
//
// Thread-safety: its owner guards it.
#ifndef KDN_KDN_CLIENT_USAGE_USAGE_OUTBOX_H_
#define KDN_KDN_CLIENT_USAGE_USAGE_OUTBOX_H_

#include <cstdint>

#include "absl/time/time.h"
#include "kdn-client/usage/usage_sink.h"
#include "storage/analytics/use_report.h"
#include "storage/base/backoff.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class UsageOutbox {
 public:
  struct Options {
    SpaceId space = {};
    SpaceDescription description = {};
    absl::Duration interval = absl::Seconds(5);
    absl::Duration longest_pause = absl::Minutes(1);
    absl::Duration describe_every = absl::Minutes(5);  // while the engine is at work: nodes forget when they restart
    uint64_t seed = 0;                                 // of the pauses
  };
  UsageOutbox(const Options& options, SteadyClock::Point now);

  // Of `more` the counts alone; it may have none, and then says that the engine is at work.
  void Add(const UseReport& more, SteadyClock::Point now);

  // SteadyClock::Point::max(): nothing is to be sent.
  SteadyClock::Point Due() const { return due_; }
  bool Pending() const { return due_ != SteadyClock::Point::max(); }

  // Everything that is to be sent.
  UseReport Take();
  // What became of what was taken last.
  void Ended(const UseReport& report, UsageOutcome outcome, SteadyClock::Point now);

 private:
  UseReport Empty() const { return {.space = options_.space, .description = options_.description}; }
  void MakeDue(SteadyClock::Point at) { due_ = std::min(due_, std::max(at, not_before_)); }

  const Options options_;
  Backoff backoff_;
  UseReport pending_;
  SteadyClock::Point due_;
  SteadyClock::Point not_before_ = SteadyClock::Point::min();  // because the last one failed
  SteadyClock::Point described_ = SteadyClock::Point::min();
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_USAGE_USAGE_OUTBOX_H_
