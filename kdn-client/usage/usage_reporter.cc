#include "kdn-client/usage/usage_reporter.h"

#include <chrono>
#include <random>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Shorter ones stand in many a name by chance.
constexpr size_t kSaltToldFromText = 8;

absl::Status CheckTenant(const std::string& tenant, const std::string& salt) {
  if (tenant.size() > kMostDescriptionBytes) {
    return InvalidArgument("tenant: {} bytes; shorten it to {}", tenant.size(), kMostDescriptionBytes);
  }
  if (tenant != AsDescription(tenant)) return InvalidArgument("tenant: give printable ASCII");
  if (salt.empty() || tenant.empty()) return absl::OkStatus();
  if (tenant == salt || (salt.size() >= kSaltToldFromText && tenant.find(salt) != std::string::npos)) {
    return InvalidArgument("tenant: it has the space's tenant_salt in it, which is a secret; give a name for people");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<UsageReporter>> UsageReporter::Start(const Options& options,
                                                                    std::shared_ptr<UsageSink> sink) {
  KDN_ASSIGN_OR_RETURN(const SpaceId space, ComputeSpaceId(options.space));
  KDN_RETURN_IF_ERROR(CheckTenant(options.tenant, options.space.tenant_salt));
  if (options.interval <= absl::ZeroDuration()) return InvalidArgument("interval: give a positive time");
  if (options.timeout <= absl::ZeroDuration()) return InvalidArgument("timeout: give a positive time");
  const UsageOutbox::Options outbox = {.space = space,
                                       .description = DescriptionOf(options.space, options.tenant),
                                       .interval = options.interval,
                                       .seed = std::random_device()()};
  return std::unique_ptr<UsageReporter>(new UsageReporter(options, outbox, std::move(sink)));
}

UsageReporter::UsageReporter(const Options& options, const UsageOutbox::Options& outbox,
                             std::shared_ptr<UsageSink> sink)
    : least_tokens_(options.space.chunk_tokens),
      timeout_(options.timeout),
      sink_(std::move(sink)),
      outbox_(outbox, std::chrono::steady_clock::now()),
      thread_([this] { Run(); }) {}

UsageReporter::~UsageReporter() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void UsageReporter::Add(const UseReport& more) {
  MutexLock lock(mu_);
  const SteadyClock::Point before = outbox_.Due();
  outbox_.Add(more, std::chrono::steady_clock::now());
  if (outbox_.Due() < before) changed_.NotifyAll();
}

void UsageReporter::Prefilled(uint64_t tokens, absl::Duration elapsed) {
  UseReport more;
  if (tokens >= least_tokens_ && elapsed > absl::ZeroDuration()) {
    more.prefilled_tokens = static_cast<double>(tokens);
    more.prefill_seconds = absl::ToDoubleSeconds(elapsed);
  }
  Add(more);
}

void UsageReporter::Blended(const BlendCounts& counts) { Add({.blend = counts}); }

void UsageReporter::Refused(BlendRefusal reason) {
  UseReport more;
  more.blend.refused[static_cast<size_t>(reason)] = 1;
  Add(more);
}

bool UsageReporter::Flush(absl::Duration patience) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(patience);
  MutexLock lock(mu_);
  const uint64_t lost = counts_.lost;
  flushing_ = true;
  changed_.NotifyAll();
  while (sending_ || (flushing_ && outbox_.Pending())) {
    if (!changed_.WaitUntil(mu_, deadline) && std::chrono::steady_clock::now() >= deadline) return false;
  }
  return !outbox_.Pending() && counts_.lost == lost;
}

UsageReporter::Counts UsageReporter::counts() const {
  MutexLock lock(mu_);
  return counts_;
}

void UsageReporter::SendOne() {
  const UseReport report = outbox_.Take();
  flushing_ = false;
  sending_ = true;
  mu_.Unlock();
  const UsageSink::Sent sent = sink_->Send(report, RealNow() + timeout_);
  mu_.Lock();
  sending_ = false;
  outbox_.Ended(report, sent.outcome, std::chrono::steady_clock::now());
  switch (sent.outcome) {
    case UsageOutcome::kCounted:
      ++counts_.counted;
      break;
    case UsageOutcome::kNotCounted:
      ++counts_.kept;
      break;
    case UsageOutcome::kUnknown:
    case UsageOutcome::kRefused:
      ++counts_.lost;
      break;
  }
  if (sent.outcome != UsageOutcome::kCounted) counts_.last_failure = sent.why;
  changed_.NotifyAll();
}

void UsageReporter::Run() {
  MutexLock lock(mu_);
  while (!stopping_) {
    const SteadyClock::Point due = outbox_.Due();
    if (outbox_.Pending() && (flushing_ || due <= std::chrono::steady_clock::now())) {
      SendOne();
    } else if (outbox_.Pending()) {
      changed_.WaitUntil(mu_, due);
    } else {
      flushing_ = false;
      changed_.Wait(mu_);
    }
  }
  if (outbox_.Pending()) SendOne();
}

}  // namespace kdn
