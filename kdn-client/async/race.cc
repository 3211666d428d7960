#include "kdn-client/async/race.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "kdn-client/async/wait.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {

Race::Outcome Race::Run(std::span<const size_t> replicas, const Ask& ask, const Rules& rules) {
  Outcome outcome;
  size_t next = 0;
  Begin(replicas[next++], /*is_hedge=*/false, ask);
  absl::Time hedge_at = RealNow() + rules.delay;
  for (bool over = false; !over;) {
    const Attempt* attempt = nullptr;
    switch (Await(hedge_at, attempt, outcome.status)) {
      case Event::kStopped:
        outcome.status = Cancelled("the call was cancelled");
        over = true;
        break;
      case Event::kOutOfTime:
        outcome.status = DeadlineExceeded("the deadline has passed");
        over = true;
        break;
      case Event::kAnswered:
        CancelAllBut(attempt);
        outcome.won = true;
        outcome.hedge_won = attempt->is_hedge;
        break;
      case Event::kWinnerEnded:
        if (!outcome.status.ok()) outcome.failed.push_back(attempt->replica);
        over = true;
        break;
      case Event::kAttemptFailed:
        outcome.failed.push_back(attempt->replica);
        if (absl::IsInvalidArgument(outcome.status) || RealNow() >= deadline_) {
          over = true;
        } else if (next < replicas.size()) {
          ++outcome.failed_over;
          Begin(replicas[next++], /*is_hedge=*/false, ask);
          hedge_at = RealNow() + rules.delay;
        } else {
          over = !AnyRunning();
        }
        break;
      case Event::kHedgeTime:
        if (next < replicas.size() && rules.may_hedge()) {
          ++outcome.hedged;
          Begin(replicas[next++], /*is_hedge=*/true, ask);
          hedge_at = RealNow() + rules.delay;
        } else {
          hedge_at = next < replicas.size() ? RealNow() + rules.again : absl::InfiniteFuture();
        }
        break;
    }
  }
  Close();
  CancelAllBut(nullptr);
  MutexLock lock(mu_);
  outcome.first_answer = first_answer_;
  return outcome;
}

bool Race::Claim(Attempt& attempt) {
  MutexLock lock(mu_);
  if (closed_) return false;
  if (winner_ == nullptr) {
    winner_ = &attempt;
    first_answer_ = RealNow() - attempt.started_;
    changed_.NotifyAll();
  }
  return winner_ == &attempt;
}

void Race::Stop() {
  {
    MutexLock lock(mu_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  CancelAllBut(nullptr);
}

void Race::Begin(size_t replica, bool is_hedge, const Ask& ask) {
  auto attempt = std::make_shared<Attempt>(replica, is_hedge);
  attempt->started_ = RealNow();
  {
    MutexLock lock(mu_);
    attempts_.push_back(attempt);
  }
  threads_.Run([race = shared_from_this(), attempt, ask] {
    absl::Status status;
    try {
      status = ask(*attempt);
    } catch (const std::exception& e) {
      status = Internal("the call threw: {}", e.what());
    } catch (...) {
      status = Internal("the call threw");
    }
    race->Ended(*attempt, std::move(status));
  });
}

void Race::Ended(Attempt& attempt, absl::Status status) {
  MutexLock lock(mu_);
  // A call that was answered without a claim had nothing to say.
  if (status.ok() && winner_ == nullptr && !closed_) {
    winner_ = &attempt;
    first_answer_ = RealNow() - attempt.started_;
  }
  attempt.ended_ = std::move(status);
  changed_.NotifyAll();
}

Race::Event Race::Await(absl::Time hedge_at, const Attempt*& attempt, absl::Status& status) {
  MutexLock lock(mu_);
  while (true) {
    if (stopped_) return Event::kStopped;
    if (winner_ != nullptr) {
      attempt = winner_;
      if (!std::exchange(told_, true)) return Event::kAnswered;
      if (winner_->ended_.has_value()) {
        status = *winner_->ended_;
        return Event::kWinnerEnded;
      }
    } else {
      for (const AttemptPtr& one : attempts_) {
        if (!one->ended_.has_value() || std::exchange(one->handled_, true)) continue;
        attempt = one.get();
        status = *one->ended_;
        return Event::kAttemptFailed;
      }
    }
    const absl::Time now = RealNow();
    if (now >= deadline_) return Event::kOutOfTime;
    if (winner_ == nullptr && now >= hedge_at) return Event::kHedgeTime;
    const absl::Time wake = winner_ == nullptr ? std::min(deadline_, hedge_at) : deadline_;
    changed_.WaitUntil(mu_, SteadyTime(Clock::Real(), wake));
  }
}

bool Race::AnyRunning() {
  MutexLock lock(mu_);
  return std::any_of(attempts_.begin(), attempts_.end(), [](const AttemptPtr& a) { return !a->handled_; });
}

void Race::CancelAllBut(const Attempt* winner) {
  std::vector<AttemptPtr> others;
  {
    MutexLock lock(mu_);
    for (const AttemptPtr& attempt : attempts_) {
      if (attempt.get() != winner && !attempt->ended_.has_value()) others.push_back(attempt);
    }
  }
  for (const AttemptPtr& attempt : others) attempt->cancel.Cancel();
}

void Race::Close() {
  MutexLock lock(mu_);
  closed_ = true;
}

}  // namespace kdn
