// HeldTransport: calls wait in it until a test lets them go on. Tests also make it fail, or break off in the middle.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_TESTS_KDN_CLIENT_ASYNC_TEST_TRANSPORTS_H_
#define KDN_TESTS_KDN_CLIENT_ASYNC_TEST_TRANSPORTS_H_

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "kdn-client/async/wait.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "tests/kdn-client/forwarding_transport.h"

namespace kdn {

// Passes on the first `parts` half parts, and nothing after them.
class BreakingSink final : public SlabSink {
 public:
  BreakingSink(SlabSink& next, size_t parts) : next_(next), parts_(parts) {}

  bool broken() const { return broken_; }
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    return !broken_ && next_.OnChunk(chunk, manifest, tier);
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
    const size_t half = part.size() / 2;
    Pass(chunk, slab, offset, part.first(half));
    Pass(chunk, slab, offset + half, part.subspan(half));
  }
  void OnMiss(size_t chunk, const Miss& miss) override {
    if (!broken_) next_.OnMiss(chunk, miss);
  }

 private:
  void Pass(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
    if (parts_ == 0) broken_ = true;
    if (broken_) return;
    --parts_;
    next_.OnPart(chunk, slab, offset, part);
  }

  SlabSink& next_;
  size_t parts_;
  bool broken_ = false;
};

class HeldTransport final : public ForwardingTransport {
 public:
  static constexpr size_t kNever = std::numeric_limits<size_t>::max();

  explicit HeldTransport(std::shared_ptr<Transport> next) : ForwardingTransport(std::move(next)) {}

  // Calls wait from now on. Stubborn ones heed neither cancellation nor deadline.
  void Hold(bool stubborn = false) {
    MutexLock lock(mu_);
    held_ = true;
    stubborn_ = stubborn;
  }
  void Open() {
    MutexLock lock(mu_);
    held_ = false;
    changed_.NotifyAll();
  }
  // The next `calls` fetches, lookups and stores fail.
  void Fail(absl::Status status, size_t calls = kNever) {
    MutexLock lock(mu_);
    failure_ = std::move(status);
    failures_ = calls;
  }
  // Fetches break off after so many half parts.
  void BreakAfter(size_t parts) {
    MutexLock lock(mu_);
    break_after_ = parts;
  }
  // Of the next store, the first chunk alone is refused.
  void RefuseOneChunk() {
    MutexLock lock(mu_);
    refuse_one_ = true;
  }

  void AwaitBegun(size_t calls) {
    MutexLock lock(mu_);
    while (begun_ < calls) changed_.Wait(mu_);
  }
  void AwaitEnded(size_t calls) {
    MutexLock lock(mu_);
    while (ended_ < calls) changed_.Wait(mu_);
  }
  size_t begun() const {
    MutexLock lock(mu_);
    return begun_;
  }
  // How many chunks each store had.
  std::vector<size_t> stores() const {
    MutexLock lock(mu_);
    return stores_;
  }

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    const Visit visit(*this);
    KDN_RETURN_IF_ERROR(Pass(nullptr, deadline));
    return ForwardingTransport::Lookup(space, keys, least, deadline);
  }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    const Visit visit(*this);
    KDN_RETURN_IF_ERROR(Pass(query.cancel, deadline));
    FetchQuery passed = query;
    {
      MutexLock lock(mu_);
      if (stubborn_) passed.cancel = nullptr;
    }
    BreakingSink breaking(sink, break_after());
    const absl::Status status =
        ForwardingTransport::Fetch(passed, stubborn() ? absl::InfiniteFuture() : deadline, breaking);
    if (breaking.broken()) return Unavailable("the connection broke");
    return status;
  }

  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    const Visit visit(*this);
    bool refuse = false;
    {
      MutexLock lock(mu_);
      stores_.push_back(chunks.size());
      refuse = std::exchange(refuse_one_, false);
    }
    KDN_RETURN_IF_ERROR(Pass(nullptr, deadline));
    if (!refuse) return ForwardingTransport::Store(chunks, ack, deadline);
    KDN_ASSIGN_OR_RETURN(std::vector<absl::Status> rest, ForwardingTransport::Store(chunks.subspan(1), ack, deadline));
    rest.insert(rest.begin(), ResourceExhausted("no room"));
    return rest;
  }

 private:
  class Visit {
   public:
    explicit Visit(HeldTransport& held) : held_(held) { held_.Count(&HeldTransport::begun_); }
    ~Visit() { held_.Count(&HeldTransport::ended_); }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    HeldTransport& held_;
  };

  void Count(size_t HeldTransport::*count) {
    MutexLock lock(mu_);
    ++(this->*count);
    changed_.NotifyAll();
  }
  size_t break_after() {
    MutexLock lock(mu_);
    return break_after_;
  }
  bool stubborn() {
    MutexLock lock(mu_);
    return stubborn_;
  }

  absl::Status Pass(Cancellation* cancel, absl::Time deadline) {
    const Cancellation::Link link(cancel, [this] {
      MutexLock lock(mu_);
      changed_.NotifyAll();
    });
    while (true) {
      const bool cancelled = cancel != nullptr && cancel->cancelled();
      MutexLock lock(mu_);
      if (failures_ > 0) {
        if (failures_ != kNever) --failures_;
        return failure_;
      }
      if (!held_) return absl::OkStatus();
      if (!stubborn_ && cancelled) return Cancelled("the call was cancelled");
      if (!stubborn_ && absl::Now() >= deadline) return DeadlineExceeded("the deadline has passed");
      // A cancellation between the look at it and this wait is found a little later.
      changed_.WaitUntil(mu_, SteadyTime(Clock::Real(), std::min(deadline, absl::Now() + absl::Milliseconds(10))));
    }
  }

  mutable Mutex mu_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  bool stubborn_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  size_t failures_ ABSL_GUARDED_BY(mu_) = 0;
  size_t break_after_ ABSL_GUARDED_BY(mu_) = kNever;
  bool refuse_one_ ABSL_GUARDED_BY(mu_) = false;
  size_t begun_ ABSL_GUARDED_BY(mu_) = 0;
  size_t ended_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<size_t> stores_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_ASYNC_TEST_TRANSPORTS_H_
