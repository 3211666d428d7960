#include "placement/daemon/watch_reactor.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using WriteReactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

// One write at a time; Finish once, and only while none is under way. The feed shares the reactor, as it may call a
// watcher that has just left.
class WatchReactor final : public WriteReactor,
                           public TopologyFeed::Watcher,
                           public std::enable_shared_from_this<WatchReactor> {
 public:
  WatchReactor(TopologyFeed& feed, const TopologyFeed::Held& held, std::function<void(const absl::Status&)> ended)
      : feed_(feed), ended_(std::move(ended)), held_(held) {}

  void Start() {
    self_ = shared_from_this();
    StartSendInitialMetadata();  // the watcher knows that it is connected, also while nothing changes
    if (const absl::Status added = feed_.Add(self_); !added.ok()) return End(added);
    Ready();
  }

  void Ready() override {
    {
      MutexLock lock(mu_);
      if (writing_ || finished_ || end_.has_value()) return;
      const std::optional<TopologyFeed::Update> update = feed_.Next(held_);
      if (!update.has_value()) return;
      writing_ = true;
      held_ = update->now;
      bytes_ = update->bytes;
    }
    StartWrite(&bytes_);
  }

  void Ended(const absl::Status& why) override { End(why); }
  void OnCancel() override { End(Cancelled("the watcher has left")); }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (!ok && !end_.has_value()) end_ = Cancelled("the watcher has left");
    }
    Finish();
    Ready();
  }

  void OnDone() override {
    feed_.Remove(self_);
    self_.reset();  // the last word, unless the feed is just calling
  }

 private:
  void End(const absl::Status& why) {
    {
      MutexLock lock(mu_);
      if (!end_.has_value()) end_ = why;
    }
    Finish();
  }

  // If the call is to end, and may.
  void Finish() {
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (writing_ || finished_ || !end_.has_value()) return;
      finished_ = true;
      status = *end_;
    }
    ended_(status);
    WriteReactor::Finish(ToGrpcStatus(status));
  }

  TopologyFeed& feed_;
  const std::function<void(const absl::Status&)> ended_;
  std::shared_ptr<WatchReactor> self_;  // until the call is done
  grpc::ByteBuffer bytes_;              // what is being written
  Mutex mu_;
  TopologyFeed::Held held_ ABSL_GUARDED_BY(mu_);  // that the watcher has, or is being sent
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
};

class RefusedWatch final : public WriteReactor {
 public:
  explicit RefusedWatch(const absl::Status& why) { Finish(ToGrpcStatus(why)); }
  void OnDone() override { delete this; }
};

}  // namespace

WriteReactor* StartWatch(TopologyFeed& feed, const TopologyFeed::Held& held,
                         std::function<void(const absl::Status&)> ended) {
  const auto reactor = std::make_shared<WatchReactor>(feed, held, std::move(ended));
  reactor->Start();
  return reactor.get();
}

WriteReactor* RefuseWatch(const absl::Status& why) { return new RefusedWatch(why); }

grpc::Status ToGrpcStatus(const absl::Status& status) {
  constexpr size_t kMaxText = 1000;
  return {static_cast<grpc::StatusCode>(status.code()), MessageOf(status).substr(0, kMaxText)};
}

}  // namespace kdn
