#include "kdn-client/async/async_client.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "kdn-client/async/wait.h"
#include "kdn-client/cancellation.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"
#include "storage/format/manifest.h"

namespace kdn {
namespace async_internal {

// What the queue knows of a call.
class QueuedCall {
 public:
  QueuedCall(absl::Time deadline, uint64_t bytes) : deadline_(deadline), bytes_(bytes) {}
  virtual ~QueuedCall() = default;

  absl::Time deadline() const { return deadline_; }
  uint64_t bytes() const { return bytes_; }
  Cancellation& cancellation() { return cancellation_; }
  const TraceContext& trace() const { return trace_; }

  // Exactly one of the two is called, once; then RunCallback, at most once.
  virtual void Run() = 0;
  virtual void EndUnbegun(const Miss& why) = 0;
  virtual void RunCallback() = 0;

 private:
  const absl::Time deadline_;
  const uint64_t bytes_;
  const TraceContext trace_ = CurrentTrace();  // of whoever started the call
  Cancellation cancellation_;
};
using QueuedCallPtr = std::shared_ptr<QueuedCall>;

template <typename Result>
class Call final : public QueuedCall {
 public:
  // How a call is made, and what its result is when it was not made, or failed.
  struct Work {
    std::function<Result(QueuedCall&)> run;
    std::function<Result(const Miss&)> missed;
    std::function<void(const Result&)> on_done;
  };

  Call(absl::Time deadline, uint64_t bytes, Work work) : QueuedCall(deadline, bytes), work_(std::move(work)) {}

  void Run() override {
    if (cancellation().cancelled()) return EndUnbegun({MissReason::kCancelled, "the call was cancelled"});
    try {
      Finish(work_.run(*this));
    } catch (const std::exception& e) {
      EndUnbegun({MissReason::kInternal, fmt::format("the call threw: {}", e.what())});
    } catch (...) {
      EndUnbegun({MissReason::kInternal, "the call threw"});
    }
  }

  void EndUnbegun(const Miss& why) override { Finish(work_.missed(why)); }

  void RunCallback() override {
    if (work_.on_done == nullptr) return;
    try {
      work_.on_done(*result());
    } catch (...) {  // the caller was told that it is dropped
      return;
    }
  }

  const Result& Wait() const {
    MutexLock lock(mu_);
    while (!result_.has_value()) done_.Wait(mu_);
    return *result_;
  }

  bool WaitUntil(absl::Time time) const {
    MutexLock lock(mu_);
    while (!result_.has_value()) {
      if (RealNow() >= time) return false;
      done_.WaitUntil(mu_, SteadyTime(Clock::Real(), time));
    }
    return true;
  }

  const Result* result() const {
    MutexLock lock(mu_);
    return result_.has_value() ? &*result_ : nullptr;
  }

 private:
  void Finish(Result result) {
    MutexLock lock(mu_);
    result_ = std::move(result);
    done_.NotifyAll();
  }

  const Work work_;
  mutable Mutex mu_;
  mutable CondVar done_;
  std::optional<Result> result_ ABSL_GUARDED_BY(mu_);  // never changes once it is there
};

// The calls that wait, and who runs them.
class Queue {
 public:
  explicit Queue(const AsyncOptions& options) : options_(options) {}

  void Add(const QueuedCallPtr& call) {
    bool stopping = false;
    {
      MutexLock lock(mu_);
      stopping = stopping_;
      if (!stopping && waiting_.size() < options_.max_waiting) {
        waiting_.push_back(call);
        changed_.NotifyAll();
        return;
      }
      if (!stopping) ++ending_;
    }
    if (stopping) return call->EndUnbegun(Stopping());
    EndUnbegun(call, {MissReason::kRefused, fmt::format("{} calls wait already", options_.max_waiting)});
  }

  void Cancel(const QueuedCallPtr& call) {
    call->cancellation().Cancel();
    bool waited = false;
    {
      MutexLock lock(mu_);
      const auto at = std::find(waiting_.begin(), waiting_.end(), call);
      waited = at != waiting_.end();
      if (waited) {
        waiting_.erase(at);
        ++ending_;
      }
    }
    if (waited) EndUnbegun(call, {MissReason::kCancelled, "the call was cancelled before it began"});
  }

  // Runs calls until Stop.
  void RunCalls() {
    while (QueuedCallPtr call = AwaitTurn()) {
      const ScopedTrace scope(call->trace());
      call->Run();
      {
        MutexLock lock(mu_);
        std::erase(running_, call);
        bytes_in_flight_ -= call->bytes();
        changed_.NotifyAll();
      }
      call->RunCallback();
    }
  }

  // Ends what waits too long, and all that waits once it is stopped, and runs the callbacks of calls that never began.
  // Until Stop.
  void RunKeeper() {
    while (true) {
      std::vector<QueuedCallPtr> over;  // calls that are to end
      std::vector<QueuedCallPtr> ended;
      bool stopping = false;
      {
        MutexLock lock(mu_);
        while (true) {
          stopping = stopping_;
          over = TakeOver();
          ended.swap(ended_);
          if (!over.empty() || !ended.empty()) break;
          if (stopping && ending_ == 0) return;
          changed_.WaitUntil(mu_, SteadyTime(Clock::Real(), NextDeadline()));
        }
      }
      for (const QueuedCallPtr& call : over) {
        call->EndUnbegun(stopping ? Stopping() : Miss{MissReason::kDeadline, "its deadline passed before its turn"});
      }
      for (const QueuedCallPtr& call : over) call->RunCallback();
      for (const QueuedCallPtr& call : ended) call->RunCallback();
    }
  }

  // Ends all calls, soon.
  void Stop() {
    std::vector<QueuedCallPtr> running;
    {
      MutexLock lock(mu_);
      stopping_ = true;
      running = running_;
      changed_.NotifyAll();
    }
    for (const QueuedCallPtr& call : running) call->cancellation().Cancel();
  }

 private:
  static Miss Stopping() { return {MissReason::kCancelled, "the client is being destroyed"}; }

  // The next call, once it may begin. Null after Stop.
  QueuedCallPtr AwaitTurn() {
    MutexLock lock(mu_);
    while (!stopping_ && !MayBegin()) changed_.Wait(mu_);
    if (stopping_) return nullptr;
    QueuedCallPtr call = std::move(waiting_.front());
    waiting_.pop_front();
    running_.push_back(call);
    bytes_in_flight_ += call->bytes();
    return call;
  }

  bool MayBegin() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (waiting_.empty()) return false;
    const uint64_t bytes = waiting_.front()->bytes();
    if (bytes_in_flight_ == 0 || bytes == 0) return true;
    return bytes <= options_.max_bytes_in_flight && bytes_in_flight_ <= options_.max_bytes_in_flight - bytes;
  }

  // Calls that waited too long; all of them once it is stopped.
  std::vector<QueuedCallPtr> TakeOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    std::vector<QueuedCallPtr> over;
    const absl::Time until = stopping_ ? absl::InfiniteFuture() : RealNow();
    std::erase_if(waiting_, [&](const QueuedCallPtr& call) {
      if (call->deadline() > until) return false;
      over.push_back(call);
      return true;
    });
    return over;
  }

  absl::Time NextDeadline() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    absl::Time next = absl::InfiniteFuture();
    for (const QueuedCallPtr& call : waiting_) next = std::min(next, call->deadline());
    return next;
  }

  // The call is neither waiting nor running, and counted in ending_.
  void EndUnbegun(const QueuedCallPtr& call, const Miss& why) {
    call->EndUnbegun(why);
    MutexLock lock(mu_);
    --ending_;
    ended_.push_back(call);
    changed_.NotifyAll();
  }

  const AsyncOptions options_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<QueuedCallPtr> waiting_ ABSL_GUARDED_BY(mu_);
  std::vector<QueuedCallPtr> running_ ABSL_GUARDED_BY(mu_);
  size_t ending_ ABSL_GUARDED_BY(mu_) = 0;                 // calls that Add or Cancel is just ending
  std::vector<QueuedCallPtr> ended_ ABSL_GUARDED_BY(mu_);  // that never began; their callbacks are still to be run
  uint64_t bytes_in_flight_ ABSL_GUARDED_BY(mu_) = 0;      // of running_
};

}  // namespace async_internal

using async_internal::Call;
using async_internal::QueuedCall;

template <typename Result>
AsyncCall<Result>::AsyncCall(std::shared_ptr<async_internal::Queue> queue, std::shared_ptr<Call<Result>> call)
    : queue_(std::move(queue)), call_(std::move(call)) {}

template <typename Result>
const Result& AsyncCall<Result>::Wait() const {
  return call_->Wait();
}

template <typename Result>
bool AsyncCall<Result>::WaitUntil(absl::Time time) const {
  return call_->WaitUntil(time);
}

template <typename Result>
bool AsyncCall<Result>::done() const {
  return call_->result() != nullptr;
}

template <typename Result>
const Result* AsyncCall<Result>::result() const {
  return call_->result();
}

template <typename Result>
void AsyncCall<Result>::Cancel() const {
  queue_->Cancel(call_);
}

template class AsyncCall<absl::StatusOr<FetchReport>>;
template class AsyncCall<PrefixHit>;

namespace {

// What a fetch refers to, for as long as it may run.
struct FetchWork {
  std::vector<ChunkRef> chunks;
  KvLayout destination;
  std::vector<int32_t> block_table;  // the destination's, if it has one
  FetchOptions options;
  absl::Time started;
};

FetchReport AllMissed(const FetchWork& work, const Miss& why) {
  FetchReport report;
  report.chunks.assign(work.chunks.size(), ChunkOutcome{.miss = why});
  report.elapsed = Clock::Real().Now() - work.started;
  return report;
}

}  // namespace

AsyncClient::AsyncClient(std::shared_ptr<Client> client, const AsyncOptions& options)
    : client_(std::move(client)), queue_(std::make_shared<async_internal::Queue>(options)) {
  layer_bytes_.resize(LayerCount(client_->space()));
  for (const SlabInfo& slab : SlabsOf(client_->space(), 1)) layer_bytes_[slab.layer] += slab.shape.RawSize();
  threads_.emplace_back([this] { queue_->RunKeeper(); });
  for (size_t i = 0; i < std::max<size_t>(options.max_calls, 1); ++i) {
    threads_.emplace_back([this] { queue_->RunCalls(); });
  }
}

AsyncClient::~AsyncClient() {
  queue_->Stop();
  for (std::thread& thread : threads_) thread.join();
}

FetchCall AsyncClient::StartFetch(std::vector<ChunkRef> chunks, KvLayout destination, FetchOptions options,
                                  std::function<void(const absl::StatusOr<FetchReport>&)> on_done) {
  const absl::Time started = Clock::Real().Now();
  const absl::Time deadline = started + options.deadline;
  const uint64_t bytes = BytesOf(chunks, options.layers);
  auto work = std::make_shared<FetchWork>(FetchWork{.chunks = std::move(chunks),
                                                    .destination = std::move(destination),
                                                    .block_table = {},
                                                    .options = std::move(options),
                                                    .started = started});
  if (auto* paged = std::get_if<PagedKv>(&work->destination); paged != nullptr) {
    work->block_table.assign(paged->block_table.begin(), paged->block_table.end());
    paged->block_table = work->block_table;
  }
  Call<absl::StatusOr<FetchReport>>::Work steps;
  steps.run = [work, deadline, client = client_](QueuedCall& call) -> absl::StatusOr<FetchReport> {
    if (work->options.cancel != nullptr) {
      return InvalidArgument("options.cancel is given; cancel an asynchronous fetch by its FetchCall");
    }
    FetchOptions fetch = work->options;
    fetch.deadline = deadline - Clock::Real().Now();
    fetch.cancel = &call.cancellation();
    absl::StatusOr<FetchReport> report = client->Fetch(work->chunks, work->destination, fetch);
    if (report.ok()) report->elapsed = Clock::Real().Now() - work->started;
    return report;
  };
  steps.missed = [work](const Miss& why) -> absl::StatusOr<FetchReport> {
    if (why.reason == MissReason::kInternal) return Internal("{}", why.detail);
    return AllMissed(*work, why);
  };
  steps.on_done = std::move(on_done);
  auto call = std::make_shared<Call<absl::StatusOr<FetchReport>>>(deadline, bytes, std::move(steps));
  queue_->Add(call);
  return FetchCall(queue_, std::move(call));
}

LookupCall AsyncClient::StartLookup(std::vector<Token> tokens, const LookupOptions& options,
                                    std::function<void(const PrefixHit&)> on_done) {
  const absl::Time deadline = Clock::Real().Now() + options.deadline;
  const auto prompt = std::make_shared<const std::vector<Token>>(std::move(tokens));
  Call<PrefixHit>::Work steps;
  steps.run = [prompt, options, deadline, client = client_](QueuedCall&) {
    return client->LookupPrefix(*prompt, {.deadline = deadline - Clock::Real().Now(), .least = options.least});
  };
  steps.missed = [prompt, client = client_](const Miss& why) {
    PrefixHit hit;
    absl::StatusOr<std::vector<ChunkRef>> chain =
        ChunkChain(client->space_id(), client->space().chunk_tokens, *prompt, /*whole_only=*/true);
    if (chain.ok()) hit.chunks = *std::move(chain);
    hit.stopped_by = why;
    return hit;
  };
  steps.on_done = std::move(on_done);
  auto call = std::make_shared<Call<PrefixHit>>(deadline, 0, std::move(steps));
  queue_->Add(call);
  return LookupCall(queue_, std::move(call));
}

uint64_t AsyncClient::BytesOf(std::span<const ChunkRef> chunks, LayerRange layers) const {
  uint64_t token_bytes = 0;
  for (uint32_t layer = 0; layer < layer_bytes_.size(); ++layer) {
    if (layers.Contains(layer)) token_bytes += layer_bytes_[layer];
  }
  uint64_t tokens = 0;
  for (const ChunkRef& chunk : chunks) tokens += chunk.tokens;
  return tokens * token_bytes;
}

}  // namespace kdn
