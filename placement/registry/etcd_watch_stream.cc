#include "placement/registry/etcd_watch_stream.h"

#include <utility>

#include "storage/base/status.h"

namespace kdn {

EtcdWatchStream::EtcdWatchStream(const EtcdMember& member, const etcdserverpb::WatchCreateRequest& request,
                                 Interrupt& interrupt)
    : member_(member), scope_(interrupt, context_) {
  *create_.mutable_create_request() = request;
  context_.AddMetadata("hasleader", "true");
  stream_ = member_.watch->PrepareAsyncWatch(&context_, &queue_);
  stream_->StartCall(&starting_);
}

EtcdWatchStream::~EtcdWatchStream() {
  context_.TryCancel();
  Finish().IgnoreError();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

absl::StatusOr<std::optional<etcdserverpb::WatchResponse>> EtcdWatchStream::Next(absl::Time until) {
  while (!finished_.has_value()) {
    if (started_ && !reading_) {
      reading_ = true;
      stream_->Read(&response_, &reading_);
    }
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(until)) != grpc::CompletionQueue::GOT_EVENT) {
      return std::nullopt;
    }
    *static_cast<bool*>(tag) = false;
    if (tag == &reading_ && ok) return std::move(response_);
    if (tag == &starting_ && ok) {
      started_ = true;
      Write(create_);
    }
    if (!ok) Finish().IgnoreError();
  }
  return *finished_;
}

void EtcdWatchStream::Probe() {
  if (!started_ || writing_ || finished_.has_value()) return;
  etcdserverpb::WatchRequest request;
  request.mutable_progress_request();
  Write(request);
}

void EtcdWatchStream::Write(const etcdserverpb::WatchRequest& request) {
  writing_ = true;
  stream_->Write(request, &writing_);  // which copies it before it returns
}

absl::Status EtcdWatchStream::Finish() {
  if (finished_.has_value()) return *finished_;
  // Whatever is still under way of a broken stream ends soon, and of a cancelled one at once. A write that fails leaves
  // a read that would wait for a message.
  if (reading_ || writing_ || starting_) context_.TryCancel();
  void* tag = nullptr;
  bool ok = false;
  while ((starting_ || writing_ || reading_) && queue_.Next(&tag, &ok)) *static_cast<bool*>(tag) = false;
  grpc::Status status;
  finishing_ = true;
  stream_->Finish(&status, &finishing_);
  while (finishing_ && queue_.Next(&tag, &ok)) *static_cast<bool*>(tag) = false;
  finished_ =
      status.ok() ? Unavailable("etcd member {} ended the watch", member_.endpoint) : EtcdError(member_, status);
  return *finished_;
}

}  // namespace kdn
