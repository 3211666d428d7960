// StepStream: a server stream whose messages are made one at a time, on the node's workers, each once the one before is
// written. It ends when its peer leaves or the node stops. Seats: how many calls of a kind run at once.
//
//   class Listing final : public StepStream<v1::Page> {
//     absl::StatusOr<bool> Make(v1::Page& page) override { … return page.items_size() > 0; }
//   };
//   if (!seats.Take()) return new RefusedCall<…>(…);
//   auto* reactor = new Listing(state, seats, Method::kList, {.context = context});
//   reactor->Start();
//   return reactor;
//
// Thread-safety: Seats may be used from any thread; a stream makes its messages on one thread at a time.
#ifndef KDN_KDN_NODE_STEP_STREAM_H_
#define KDN_KDN_NODE_STEP_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-node/call_record.h"
#include "kdn-node/service_state.h"
#include "storage/base/status.h"

namespace kdn {

class Seats {
 public:
  explicit Seats(size_t count) : count_(count), free_(static_cast<int>(count)) {}
  bool Take() {
    if (free_.fetch_sub(1) > 0) return true;
    free_.fetch_add(1);
    return false;
  }
  void GiveBack() { free_.fetch_add(1); }

  // What a call that got none is told. `what` names the kind, in the plural.
  absl::Status NoneLeft(const char* what) const {
    return ResourceExhausted("{} {} run already; retry later", count_, what);
  }

 private:
  const size_t count_;
  std::atomic<int> free_;
};

template <typename Message>
class StepStream : public grpc::ServerWriteReactor<Message> {
 public:
  // One of `seats` was taken for it; it is given back at the end.
  StepStream(ServiceState& state, Seats& seats, Method method, const CallOrigin& origin)
      : state_(state), seats_(seats), record_(state, method, origin), active_(state.streams) {}

  // The call may be over when it returns.
  void Start() {
    state_.pool.Submit([this] { Step(); });
  }

 protected:
  ~StepStream() override = default;

  // Fills in the next message, which is empty. False: there is none, and the stream has ended well.
  virtual absl::StatusOr<bool> Make(Message& message) = 0;

  // Work that takes long should look at it now and then, and return early.
  bool Ending() const { return cancelled_ || state_.stopping; }
  ServiceState& state() { return state_; }

 private:
  void Step() {
    record_.Begun();
    message_.Clear();
    const absl::StatusOr<bool> made = Make(message_);
    if (cancelled_) return End(Cancelled("the peer left before the end"));
    if (state_.stopping) return End(Unavailable("the node is stopping; use another or retry later"));
    if (!made.ok() || !*made) return End(made.status());
    this->StartWrite(&message_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(Cancelled("the peer left before the end"));
    state_.pool.Submit([this] { Step(); });
  }
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { delete this; }

  void End(const absl::Status& status) {
    seats_.GiveBack();  // before the peer knows that it may come again
    this->Finish(record_.End(status));
  }

  ServiceState& state_;
  Seats& seats_;
  const CallRecord record_;
  const ActiveStreams::Entry active_;
  std::atomic<bool> cancelled_{false};
  Message message_;  // of whoever makes it; gRPC reads it while it is written
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_STEP_STREAM_H_
