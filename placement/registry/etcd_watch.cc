#include "placement/registry/etcd_watch.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"

namespace kdn {
namespace {

constexpr absl::Duration kFirstWatchPause = absl::Milliseconds(20);
constexpr absl::Duration kLongestWatchPause = absl::Milliseconds(500);
constexpr int kProbesPerTimeout = 4;
constexpr size_t kMaxFragmentBytes = size_t{256} << 20;
// Chosen here, so that what etcd says of this watch cannot be taken for an answer to a probe, which comes out of order.
constexpr int64_t kWatchId = 1;

SteadyClock::Point After(SteadyClock::Point from, absl::Duration length) {
  return from + absl::ToChronoNanoseconds(length);
}

}  // namespace

EtcdWatch::EtcdWatch(EtcdCalls& calls, std::string_view prefix, RegistryWatcher& watcher)
    : calls_(calls), prefix_(prefix), watcher_(watcher), thread_([this] { Run(); }) {}

EtcdWatch::~EtcdWatch() {
  interrupt_.Fire();
  thread_.join();
}

void EtcdWatch::Run() {
  Backoff pause(kFirstWatchPause, kLongestWatchPause, std::random_device{}());
  while (!interrupt_.fired()) {
    followed_ = false;
    const absl::Status why = Follow();
    if (interrupt_.fired()) return;
    if (followed_) {
      failures_ = 0;
      pause.Reset();
      spdlog::info("etcd watch of '{}': {}; going on {}", prefix_, MessageOf(why),
                   next_ == 0 ? "with a snapshot" : fmt::format("from revision {}", next_));
    }
    // A stream that breaks is no news as long as another member goes on with it.
    if (++failures_ > calls_.members().size()) TellLost(why);
    interrupt_.SleepFor(pause.Next());
  }
}

absl::Status EtcdWatch::Follow() {
  if (absl::Status away = CatchUp(); !away.ok()) {
    if (!interrupt_.fired()) TellLost(away);  // all members were asked, for as long as a call may take
    return away;
  }
  const EtcdMember& member = calls_.members().Current();
  etcdserverpb::WatchCreateRequest request;
  request.set_key(calls_.prefix() + prefix_);
  request.set_range_end(EtcdRangeEnd(request.key()));
  request.set_start_revision(next_);
  request.set_watch_id(kWatchId);
  request.set_progress_notify(true);
  request.set_fragment(true);
  fragments_.clear();
  fragment_bytes_ = 0;
  EtcdWatchStream stream(member, request, interrupt_);

  const absl::Duration silence = calls_.call_timeout();
  const SteadyClock& clock = SteadyClock::Real();
  SteadyClock::Point heard = clock.Now();
  while (true) {
    const absl::StatusOr<std::optional<etcdserverpb::WatchResponse>> message =
        stream.Next(Clock::Real().Now() + silence / kProbesPerTimeout);
    absl::Status status = message.status();
    if (status.ok() && message->has_value()) {
      status = Take(**message, member);
      heard = clock.Now();  // after the watcher has returned, whose time is not the member's
    } else if (status.ok() && clock.Now() >= After(heard, silence)) {
      status = Unavailable("etcd member {} has not answered for {}", member.endpoint, absl::FormatDuration(silence));
    } else if (status.ok()) {
      stream.Probe();
    }
    if (!status.ok()) {
      if (next_ != 0) calls_.members().Failed(member);  // else it works, and has compacted what is needed
      return status;
    }
  }
}

absl::Status EtcdWatch::CatchUp() {
  const absl::Time deadline = Clock::Real().Now() + calls_.call_timeout();
  if (next_ == 0) return ReadSnapshot(deadline);
  KDN_ASSIGN_OR_RETURN(const EtcdCalls::Head head, calls_.ReadHead(deadline, interrupt_));
  if (head.cluster != cluster_) {
    spdlog::warn("etcd at {}: cluster {:x} answers instead of {:x}; '{}' is read anew", calls_.members().names(),
                 head.cluster, cluster_, prefix_);
    return ReadSnapshot(deadline);
  }
  if (head.revision < next_ - 1) {
    spdlog::warn(
        "etcd at {}: its revision went back from {} to {}, so an older copy was restored, or a member lost its disk; "
        "'{}' is read anew",
        calls_.members().names(), next_ - 1, head.revision, prefix_);
    return ReadSnapshot(deadline);
  }
  return absl::OkStatus();
}

absl::Status EtcdWatch::ReadSnapshot(absl::Time deadline) {
  EtcdCalls::Head head;
  next_ = 0;
  KDN_ASSIGN_OR_RETURN(const Snapshot snapshot, calls_.Read(prefix_, deadline, interrupt_, &head));
  cluster_ = head.cluster;
  next_ = head.revision + 1;
  lost_ = false;
  watcher_.OnSnapshot(snapshot);
  return absl::OkStatus();
}

absl::Status EtcdWatch::Take(const etcdserverpb::WatchResponse& message, const EtcdMember& member) {
  if (message.header().cluster_id() != cluster_) {
    return Unavailable("etcd member {} belongs to another cluster now", member.endpoint);
  }
  if (message.canceled() || message.compact_revision() > 0) {
    if (message.compact_revision() > 0) {
      const Revision wanted = std::exchange(next_, 0);
      return Unavailable("etcd has compacted up to revision {}, and {} is needed", message.compact_revision(), wanted);
    }
    return Unavailable("etcd member {} ended the watch: {}", member.endpoint, message.cancel_reason());
  }
  if (message.created()) {
    followed_ = true;
    if (std::exchange(lost_, false)) {
      spdlog::info("etcd watch of '{}': follows {} from revision {}", prefix_, member.endpoint, next_);
      watcher_.OnEvents({}, next_ - 1);
    }
    return absl::OkStatus();
  }
  if (message.watch_id() != kWatchId) return absl::OkStatus();  // an answer to a probe
  if (message.events_size() > 0 || !fragments_.empty()) return TakeEvents(message);
  next_ = std::max(next_, message.header().revision() + 1);  // nothing happened until then
  return absl::OkStatus();
}

absl::Status EtcdWatch::TakeEvents(const etcdserverpb::WatchResponse& message) {
  for (const etcdserverpb::Event& event : message.events()) {
    const etcdserverpb::KeyValue& kv = event.kv();
    if (kv.mod_revision() < next_ || !std::string_view(kv.key()).starts_with(calls_.prefix())) continue;
    fragment_bytes_ += kv.key().size() + kv.value().size();
    fragments_.push_back(
        {.deleted = event.type() == etcdserverpb::Event::DELETE, .record = RecordFromEtcd(kv, calls_.prefix())});
  }
  if (fragment_bytes_ > kMaxFragmentBytes) {
    next_ = 0;
    return Unavailable("etcd sends more than {} MiB of events at once", kMaxFragmentBytes >> 20);
  }
  if (message.fragment() || fragments_.empty()) return absl::OkStatus();
  fragment_bytes_ = 0;
  const std::vector<RegistryEvent> events = std::exchange(fragments_, {});
  const Revision revision = events.back().record.revision;
  next_ = revision + 1;
  watcher_.OnEvents(events, revision);
  return absl::OkStatus();
}

void EtcdWatch::TellLost(const absl::Status& why) {
  if (std::exchange(lost_, true)) return;
  spdlog::warn("etcd watch of '{}' is lost, and tried again: {}", prefix_, MessageOf(why));
  watcher_.OnLost(Unavailable("{}", MessageOf(why)));
}

}  // namespace kdn
