#include "kdn-node/fetch_reactor.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kdn-node/analytics_calls.h"
#include "kdn-node/call_record.h"
#include "kdn-node/fetch_reader.h"
#include "kdn-node/wire_convert.h"
#include "proto/wire/frames.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// What a call may hold whatever the others hold, so that every call that was taken gets on.
constexpr uint64_t kFloorBytes = uint64_t{8} << 20;
// A worker turns to other calls after it has read so much for one.
constexpr uint64_t kGrpcTurnBytes = uint64_t{64} << 20;
// Chunks larger than this are read in parts, a few layers each: their first bytes should not wait for their last.
constexpr uint64_t kMaxReadBytes = uint64_t{256} << 20;

// What an item holds while it is queued.
uint64_t BytesOf(const FetchItem& item) { return item.bytes.size() + item.manifest.size(); }

class FetchReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  FetchReactor(ServiceState& state, grpc::CallbackServerContext& context, FetchCall call, ByteReservation floor)
      : state_(state),
        context_(context),
        record_(state, Method::kFetch, {.context = &context}),
        chunks_(call.what.keys.size()),
        frame_bytes_(call.frame_bytes),
        join_frames_(call.join_frames),
        reader_(MakeFetchReader(state.store, std::move(call))),
        reservation_(std::move(floor)) {}

  // Called once; the call may be over when it returns.
  void Start() {
    state_.pool.Submit([this] { Produce(); });
  }

 private:
  // What is to be done after the lock is released. Whoever gets `finish`, or `write` without being the producer, must
  // not touch the reactor afterwards: the call may be over by then.
  struct Actions {
    bool produce = false;
    bool write = false;
    bool finish = false;
    bool cut_short = false;  // with `finish`: the peer left before it had everything
  };

  void OnWriteDone(bool ok) override {
    Actions actions;
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (!ok) Stop();
      actions = Advance();
    }
    Run(actions);
  }

  void OnCancel() override {
    Actions actions;
    {
      MutexLock lock(mu_);
      Stop();
      actions = Advance();
    }
    Run(actions);
  }

  void OnDone() override { delete this; }

  // On a worker: reads until the window is full or all is read. At most one runs at a time (`producing_`).
  void Produce() {
    record_.Begun();
    Actions actions;
    for (uint64_t turn_bytes = 0;;) {
      const uint64_t wanted = std::min(reader_->NextBytes(), kMaxReadBytes);
      uint64_t allowed = 0;
      {
        MutexLock lock(mu_);
        wanted_bytes_ = wanted;
        if (stopped_ || reader_->done() || !MayRead(&allowed)) {
          read_all_ = reader_->done();
          producing_ = false;
          actions = Advance();
          break;
        }
      }
      std::vector<FetchItem> items = reader_->Step(allowed);
      {
        MutexLock lock(mu_);
        if (!stopped_) Enqueue(std::move(items), &turn_bytes);
        actions = Advance();
      }
      Run(actions);
      if (turn_bytes >= kGrpcTurnBytes) {
        state_.pool.Submit([this] { Produce(); });
        return;
      }
    }
    Run(actions);
  }

  void Enqueue(std::vector<FetchItem> items, uint64_t* turn_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (FetchItem& item : items) {
      *turn_bytes += BytesOf(item);
      queued_bytes_ += BytesOf(item);
      queue_.push_back(std::move(item));
    }
  }

  // Whether the next step may be read now, and how many bytes of it.
  bool MayRead(uint64_t* allowed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!HasRoom()) return false;
    const uint64_t needed = queued_bytes_ + wanted_bytes_;
    if (needed <= reservation_.bytes() || reservation_.Grow(needed - reservation_.bytes())) {
      *allowed = wanted_bytes_;
      return true;
    }
    // The other calls hold the rest of the budget: go on within the floor, once what was read is sent.
    budget_is_short_ = true;
    *allowed = reservation_.bytes();
    return queue_.empty();
  }

  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (queue_.empty()) return true;
    if (budget_is_short_ || queue_.size() > kMaxQueued) return false;
    return queued_bytes_ + wanted_bytes_ <= std::max(state_.options.fetch_window_bytes, 2 * wanted_bytes_);
  }

  Actions Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Actions actions;
    if (finished_) return actions;
    if (!writing_ && !queue_.empty()) {
      TakeFrame();
      writing_ = actions.write = true;
    }
    if (!producing_ && !read_all_ && !stopped_ && HasRoom()) {
      budget_is_short_ = false;
      producing_ = actions.produce = true;
    }
    if (!writing_ && !producing_ && (stopped_ || read_all_)) {
      finished_ = actions.finish = true;
      actions.cut_short = stopped_;
    }
    return actions;
  }

  void Run(const Actions& actions) {
    if (actions.produce) state_.pool.Submit([this] { Produce(); });
    if (actions.write) StartWrite(&outgoing_);
    if (actions.finish) End(actions.cut_short);
  }

  // Makes the next frame of the queue the outgoing one.
  void TakeFrame() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    wire::DataFrame where = {.chunk = queue_.front().chunk};
    std::optional<std::string> result;
    if (queue_.front().is_result) {
      result = TakeResult();
      if (!join_frames_) {
        outgoing_ = wire::EncodeFetchFrame(where, result, {});
        return;
      }
    }
    std::vector<wire::Payload> data;
    const size_t taken = result.has_value() ? std::min<size_t>(result->size(), frame_bytes_) : 0;
    for (size_t room = frame_bytes_ - taken; room > 0 && HasDataOf(where.chunk);) {
      if (data.empty()) {
        where.slab = queue_.front().slab;
        where.offset = offset_;
      }
      data.push_back(TakeData(room));
      room -= data.back().bytes.size();
      if (!join_frames_) break;
    }
    outgoing_ = wire::EncodeFetchFrame(where, result, data);
  }

  bool HasDataOf(uint32_t chunk) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !queue_.empty() && !queue_.front().is_result && queue_.front().chunk == chunk;
  }

  std::string TakeResult() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    FetchItem& item = queue_.front();
    queued_bytes_ -= BytesOf(item);
    v1::ChunkResult result;
    result.set_miss(ToWire(item.miss.reason));
    result.set_detail(WireText(std::move(item.miss.detail)));
    result.set_tier(ToWire(item.tier));
    result.set_manifest(std::move(item.manifest));
    queue_.pop_front();
    return result.SerializeAsString();
  }

  // The next part of the first slab in the queue, of at most `room` bytes.
  wire::Payload TakeData(size_t room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    FetchItem& item = queue_.front();
    const size_t n = std::min(room, item.bytes.size() - offset_);
    wire::Payload payload = {.owner = item.bytes.owner(), .bytes = item.bytes.span().subspan(offset_, n)};
    state_.metrics.Sent(n);
    record_.Sent(n);
    offset_ += n;
    if (offset_ == item.bytes.size()) {
      queued_bytes_ -= BytesOf(item);
      offset_ = 0;
      queue_.pop_front();
      reservation_.ShrinkTo(std::max(kFloorBytes, queued_bytes_));
    }
    return payload;
  }

  // The peer is gone: lets go of everything at once.
  void Stop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    stopped_ = true;
    queue_.clear();
    queued_bytes_ = offset_ = 0;
    reservation_.ShrinkTo(0);
  }

  // Nothing else runs for this call any more.
  void End(bool cut_short) {
    const uint64_t unanswered = CountFetched(*reader_, chunks_, state_.metrics);
    const bool late = cut_short && context_.deadline() <= std::chrono::system_clock::now();
    RecordFetch(state_, record_, *reader_, late ? MissReason::kDeadline : MissReason::kCancelled);
    if (!cut_short) return Finish(record_.End(absl::OkStatus()));
    state_.metrics.Fetched(late ? MissReason::kDeadline : MissReason::kCancelled, unanswered);
    Finish(record_.End(late ? DeadlineExceeded("the deadline passed with {} chunks to read", unanswered)
                            : Cancelled("the peer left with {} chunks to read", unanswered)));
  }

  // Results without slabs hold no budget; this bounds them.
  static constexpr size_t kMaxQueued = 1024;

  ServiceState& state_;
  grpc::CallbackServerContext& context_;
  const CallRecord record_;
  const ActiveStreams::Entry active_{state_.streams};
  const size_t chunks_;
  const uint32_t frame_bytes_;
  const bool join_frames_;
  const std::unique_ptr<FetchReader> reader_;  // the producer's, and End's once there is none
  grpc::ByteBuffer outgoing_;                  // set under mu_ while no write runs, then gRPC's until OnWriteDone

  Mutex mu_;
  std::deque<FetchItem> queue_ ABSL_GUARDED_BY(mu_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of the slabs in queue_
  size_t offset_ ABSL_GUARDED_BY(mu_) = 0;          // how much of the first slab in queue_ is sent
  uint64_t wanted_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // what the reader would read next
  ByteReservation reservation_ ABSL_GUARDED_BY(mu_);
  bool producing_ ABSL_GUARDED_BY(mu_) = true;  // Start begins it
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool budget_is_short_ ABSL_GUARDED_BY(mu_) = false;
  bool read_all_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartFetch(ServiceState& state, grpc::CallbackServerContext& context,
                                                       const grpc::ByteBuffer& request) {
  using Refused = RefusedCall<grpc::ServerWriteReactor<grpc::ByteBuffer>>;
  const CallOrigin origin = {.context = &context};
  if (absl::Status admitted = state.Admit(); !admitted.ok())
    return new Refused(state, Method::kFetch, origin, admitted);
  v1::FetchRequest message;
  if (absl::Status decoded = wire::DecodeMessage(request, &message); !decoded.ok()) {
    return new Refused(state, Method::kFetch, origin, decoded);
  }
  absl::StatusOr<FetchCall> call = ParseFetchRequest(message);
  if (!call.ok()) return new Refused(state, Method::kFetch, origin, call.status());
  ByteReservation floor(state.fetches);
  if (!floor.Grow(std::min(kFloorBytes, state.options.max_fetch_bytes))) {
    RecordRefused(state, *call);
    return new Refused(state, Method::kFetch, origin,
                       ResourceExhausted("fetches in progress hold {} of {} bytes; retry later, or raise "
                                         "--max-fetch-bytes",
                                         state.fetches.held(), state.fetches.limit()),
                       &call->what);
  }
  if (call->asker == Asker::kEngine) state.NoteFetch(call->what);
  auto* reactor = new FetchReactor(state, context, *std::move(call), std::move(floor));
  reactor->Start();
  return reactor;
}

}  // namespace kdn
