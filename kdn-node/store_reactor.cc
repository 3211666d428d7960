#include "kdn-node/store_reactor.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kdn-node/call_record.h"
#include "kdn-node/upload.h"
#include "kdn-node/wire_convert.h"
#include "proto/wire/frames.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Commits of one call that run at once: enough for a disk to group their syncs, too few to keep others from the
// workers.
constexpr size_t kMaxCommits = 4;

// The chunk that is being received.
struct Incoming {
  size_t index = 0;  // among the chunks of the call
  Upload upload;
};

class StoreReactor final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  StoreReactor(ServiceState& state, const CallOrigin& origin, grpc::ByteBuffer* response)
      : state_(state), record_(state, Method::kStore, origin), response_(response) {}

  void Start() { StartRead(&incoming_); }

 private:
  // What is to be done after the lock is released; the reactor must not be touched afterwards.
  struct Actions {
    bool read = false;
    bool finish = false;
  };

  // Reads come one after another, so what only they use (current_) needs no lock.
  void OnReadDone(bool ok) override {
    bool over;
    {
      MutexLock lock(mu_);
      over = input_ended_;  // the peer has left
    }
    absl::Status broken;
    if (!over && ok) {
      broken = OnFrame();
    } else if (!over) {
      Commit();  // the end of the stream ends its last chunk; if that is not whole, its assembler says so
    }
    if (over || !ok || !broken.ok()) current_.reset();
    Actions actions;
    {
      MutexLock lock(mu_);
      reading_ = false;
      if (!ok || !broken.ok()) input_ended_ = true;
      if (broken_.ok()) broken_ = broken;
      actions = Advance();
    }
    Run(actions);
  }

  void OnCancel() override {
    Actions actions;
    {
      MutexLock lock(mu_);
      input_ended_ = true;
      if (broken_.ok()) broken_ = Cancelled("the peer left before the end of its stream");
      actions = Advance();
    }
    Run(actions);
  }

  void OnDone() override { delete this; }

  // An error ends the call: the stream makes no sense any more.
  absl::Status OnFrame() {
    KDN_ASSIGN_OR_RETURN(const wire::ParsedFrame frame, wire::ParseFrame(incoming_));
    incoming_.Clear();
    if (frame.has_header) KDN_RETURN_IF_ERROR(OnBegin(frame.header));
    if (begun_ == 0) return InvalidArgument("data came before the first `begin`; send a chunk's manifest first");
    if (!frame.has_header || frame.data_bytes > 0) OnData(frame);
    return absl::OkStatus();
  }

  absl::Status OnBegin(const std::string& header) {
    Commit();
    v1::StoreBegin begin;
    if (!begin.ParseFromString(header)) return InvalidArgument("malformed frame: `begin` is not a StoreBegin");
    if (begun_ == wire::kMaxKeysPerCall) {
      return InvalidArgument("more than {} chunks in one call; start another", wire::kMaxKeysPerCall);
    }
    const size_t index = begun_++;
    {
      MutexLock lock(mu_);
      results_.emplace_back();
    }
    absl::StatusOr<Upload> upload = BeginUpload(state_, begin);
    if (upload.ok()) {
      if (index == 0) space_ = upload->assembler.manifest()->space;
      current_.emplace(Incoming{.index = index, .upload = *std::move(upload)});
    } else {
      SetResult(index, upload.status());
    }
    return absl::OkStatus();
  }

  // A chunk that contradicts itself is given up; its further data are skipped.
  void OnData(const wire::ParsedFrame& frame) {
    state_.metrics.Received(frame.data_bytes);
    received_bytes_ += frame.data_bytes;
    if (!current_.has_value()) return;
    ChunkAssembler& assembler = current_->upload.assembler;
    uint64_t offset = frame.where.offset;
    absl::Status added;
    if (frame.data.empty()) added = assembler.Add(frame.where.slab, offset, {});
    for (size_t i = 0; i < frame.data.size() && added.ok(); ++i) {
      added = assembler.Add(frame.where.slab, offset, frame.data[i]);
      offset += frame.data[i].size();
    }
    if (added.ok()) return;
    SetResult(current_->index, added);
    current_.reset();
  }

  // Ends the present chunk, if there is one: a worker verifies and stores it.
  void Commit() {
    if (!current_.has_value()) return;
    auto chunk = std::make_shared<Incoming>(*std::exchange(current_, std::nullopt));
    {
      MutexLock lock(mu_);
      ++commits_;
      committing_bytes_ += chunk->upload.reservation.bytes();
    }
    state_.pool.Submit([this, chunk = std::move(chunk)]() mutable { RunCommit(*std::exchange(chunk, nullptr)); });
  }

  void RunCommit(Incoming& chunk) {
    const uint64_t bytes = chunk.upload.reservation.bytes();
    SetResult(chunk.index, CommitUpload(state_, std::move(chunk.upload)));  // its reservation is given back by now
    Actions actions;
    {
      MutexLock lock(mu_);
      --commits_;
      committing_bytes_ -= bytes;
      actions = Advance();
    }
    Run(actions);
  }

  void SetResult(size_t index, const absl::Status& status) {
    state_.metrics.Stored(status);
    MutexLock lock(mu_);
    results_[index] = status;
  }

  Actions Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Actions actions;
    if (finished_ || reading_) return actions;
    if (!input_ended_) {
      if (commits_ < kMaxCommits && committing_bytes_ <= state_.options.commit_window_bytes) {
        reading_ = actions.read = true;
      }
    } else if (commits_ == 0) {
      finished_ = actions.finish = true;
    }
    return actions;
  }

  void Run(const Actions& actions) {
    if (actions.read) StartRead(&incoming_);
    if (actions.finish) End();
  }

  // Nothing else runs for this call any more.
  void End() {
    absl::Status status;
    {
      MutexLock lock(mu_);
      status = broken_;
      v1::StoreResponse response;
      for (const absl::Status& result : results_) *response.add_chunks() = ToWire(result);
      *response_ = wire::EncodeMessage(response);
      if (RequestRecord* const request = record_.request(); request != nullptr) {
        request->About(space_, results_.size());
        request->Received(received_bytes_);
        for (const absl::Status& result : results_) request->Done(result);
      }
    }
    Finish(record_.End(status));
  }

  ServiceState& state_;
  const CallRecord record_;
  const ActiveStreams::Entry active_{state_.streams};
  grpc::ByteBuffer* const response_;  // gRPC's, until Finish

  grpc::ByteBuffer incoming_;        // gRPC's while a read runs, then OnFrame's
  size_t begun_ = 0;                 // chunks so far
  std::optional<SpaceId> space_;     // of the first chunk
  uint64_t received_bytes_ = 0;      // of slabs
  std::optional<Incoming> current_;  // the present chunk, unless it was given up

  Mutex mu_;
  std::vector<absl::Status> results_ ABSL_GUARDED_BY(mu_);  // by chunk
  size_t commits_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t committing_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool reading_ ABSL_GUARDED_BY(mu_) = true;  // Start begins it
  bool input_ended_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mu_);  // why the call fails as a whole
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* StartStore(ServiceState& state, grpc::CallbackServerContext& context,
                                                      grpc::ByteBuffer* response) {
  const CallOrigin origin = {.context = &context};
  if (absl::Status admitted = state.Admit(); !admitted.ok()) {
    return new RefusedCall<grpc::ServerReadReactor<grpc::ByteBuffer>>(state, Method::kStore, origin, admitted);
  }
  auto* reactor = new StoreReactor(state, origin, response);
  reactor->Start();
  return reactor;
}

}  // namespace kdn
