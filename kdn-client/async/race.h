// Race: a question put to one replica, to the next as well when no answer comes within a delay, and to the next at once
// when one fails. The first that answers wins; the others are cancelled and not waited for.
//
//   auto race = std::make_shared<Race>(threads, deadline);
//   Race::Outcome outcome = race->Run(replicas, [=](Race::Attempt& attempt) {
//     … ask replica attempt.replica, under attempt.cancel; once its first answer is there: if (race->Claim(attempt)) …
//   }, rules);
//
// An attempt may go on long after Run has returned, so whatever it refers to must be kept alive by it, and nothing that
// it does counts unless Claim has told it that it won.
//
// Thread-safety: Run on one thread, once; Claim on the attempts' threads; Stop on any.
#ifndef KDN_KDN_CLIENT_ASYNC_RACE_H_
#define KDN_KDN_CLIENT_ASYNC_RACE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-client/async/task_threads.h"
#include "kdn-client/cancellation.h"
#include "storage/base/mutex.h"

namespace kdn {

class Race : public std::enable_shared_from_this<Race> {
 public:
  struct Attempt {
    Attempt(size_t replica_in, bool is_hedge_in) : replica(replica_in), is_hedge(is_hedge_in) {}

    const size_t replica;
    const bool is_hedge;  // begun because an earlier one took long
    Cancellation cancel;

   private:
    friend class Race;
    absl::Time started_;
    // Under the race's lock.
    std::optional<absl::Status> ended_;
    bool handled_ = false;  // that it ended
  };

  // Asks a replica, and returns when that is over. Runs on a thread of its own.
  using Ask = std::function<absl::Status(Attempt&)>;

  struct Rules {
    absl::Duration delay;                             // until the next replica is asked too
    std::function<bool()> may_hedge;                  // asked before that is done
    absl::Duration again = absl::InfiniteDuration();  // after which it is asked again, where it said no
  };

  struct Outcome {
    // How the winner's call ended. Where none won: why the last one failed, CANCELLED after Stop, or DEADLINE_EXCEEDED.
    absl::Status status;
    bool won = false;  // some attempt
    bool hedge_won = false;
    absl::Duration first_answer;  // since the winner was asked
    std::vector<size_t> failed;   // replicas whose calls failed
    uint64_t hedged = 0;
    uint64_t failed_over = 0;
  };

  Race(TaskThreads& threads, absl::Time deadline) : threads_(threads), deadline_(deadline) {}

  // Asks `replicas`, at least one, in this order. Returns by the deadline at the latest.
  Outcome Run(std::span<const size_t> replicas, const Ask& ask, const Rules& rules);

  // Whether `attempt` is the one whose answers count: the first to ask, while Run goes on.
  bool Claim(Attempt& attempt);

  // Cancels all attempts, and ends Run.
  void Stop();

 private:
  using AttemptPtr = std::shared_ptr<Attempt>;
  enum class Event : uint8_t { kStopped, kOutOfTime, kAnswered, kWinnerEnded, kAttemptFailed, kHedgeTime };

  void Begin(size_t replica, bool is_hedge, const Ask& ask);
  void Ended(Attempt& attempt, absl::Status status);
  // Waits for what comes next. With kWinnerEnded and kAttemptFailed, `attempt` is the one, and `status` how it ended.
  Event Await(absl::Time hedge_at, const Attempt*& attempt, absl::Status& status);
  bool AnyRunning();
  void CancelAllBut(const Attempt* winner);
  // From now on nobody wins.
  void Close();

  TaskThreads& threads_;
  const absl::Time deadline_;
  Mutex mu_;
  CondVar changed_;
  std::vector<AttemptPtr> attempts_ ABSL_GUARDED_BY(mu_);
  const Attempt* winner_ ABSL_GUARDED_BY(mu_) = nullptr;
  absl::Duration first_answer_ ABSL_GUARDED_BY(mu_);
  bool told_ ABSL_GUARDED_BY(mu_) = false;  // of the winner
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_RACE_H_
