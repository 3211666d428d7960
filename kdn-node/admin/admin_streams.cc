#include "kdn-node/admin/admin_streams.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kdn-node/admin/admin_wire.h"
#include "kdn-node/admin/chunk_answers.h"
#include "kdn-node/wire_convert.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// What one step does, beside kAdminStepLooks.
constexpr size_t kStepErasures = 64;           // chunks
constexpr size_t kStepReads = 64;              // chunks …
constexpr uint64_t kStepReadBytes = 64 << 20;  // … or so many bytes
constexpr int kPageHeldChunks = 512;

class HeldChunksStream final : public StepStream<v1::HeldChunksPage> {
 public:
  HeldChunksStream(ServiceState& state, Seats& seats, const CallOrigin& origin, const ChunkFilter& filter)
      : StepStream(state, seats, Method::kListHeldChunks, origin), filter_(filter) {}

 private:
  absl::StatusOr<bool> Make(v1::HeldChunksPage& page) override {
    if (!keys_.has_value()) FindKeys();
    while (page.chunks_size() < kPageHeldChunks && next_ < keys_->size() && !Ending()) {
      v1::HeldChunk held;
      if (!DescribeHeldChunk(state(), (*keys_)[next_++], held)) continue;  // it went meanwhile
      if (filter_.space.has_value() && held.space_id() != DigestToWire(*filter_.space)) continue;
      *page.add_chunks() = std::move(held);
    }
    return page.chunks_size() > 0;
  }

  void FindKeys() {
    if (filter_.under.has_value()) {
      ChunkSelection selection(state().store, filter_);
      while (!Ending() && !selection.Look(kAdminStepLooks)) {
      }
      keys_ = std::move(selection).Take();
      return;
    }
    keys_ = state().store.Keys();
    if (filter_.after.has_value()) keys_->erase(keys_->begin(), std::ranges::upper_bound(*keys_, *filter_.after));
  }

  const ChunkFilter filter_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
};

class ClearStream final : public StepStream<v1::ClearProgress> {
 public:
  ClearStream(ServiceState& state, Seats& seats, const CallOrigin& origin, const SpaceId& space,
              const std::optional<ChunkKey>& under)
      : StepStream(state, seats, Method::kClear, origin),
        space_(space),
        selection_(state.store, {.space = space, .under = under}) {}

 private:
  absl::StatusOr<bool> Make(v1::ClearProgress& progress) override {
    if (done_) return false;
    if (!keys_.has_value()) {
      if (selection_.Look(kAdminStepLooks)) keys_ = std::move(selection_).Take();
    } else {
      for (size_t n = 0; n < kStepErasures && next_ < keys_->size() && !Ending(); ++n) Erase((*keys_)[next_++]);
      done_ = next_ == keys_->size();
    }
    progress.set_looked_at(selection_.looked_at());
    progress.set_cleared(cleared_);
    progress.set_cleared_bytes(bytes_);
    progress.set_failed(failed_);
    progress.set_failure(failure_);
    if (keys_.has_value()) progress.set_total(keys_->size());
    progress.set_done(done_);
    return true;
  }

  void Erase(const ChunkKey& key) {
    const absl::StatusOr<ChunkDescription> chunk = state().store.Describe(key);
    const absl::Status erased = state().store.Delete(space_, key);
    if (erased.ok()) {
      ++cleared_;
      if (chunk.ok()) bytes_ += chunk->manifest->EncodedBytes();
    } else if (!absl::IsNotFound(erased)) {  // what went meanwhile is what was wanted
      ++failed_;
      failure_ = WireText(MessageOf(erased));
    }
  }

  const SpaceId space_;
  ChunkSelection selection_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
  bool done_ = false;
  uint64_t cleared_ = 0;
  uint64_t bytes_ = 0;
  uint64_t failed_ = 0;
  std::string failure_;
};

class VerifyStream final : public StepStream<v1::VerifyProgress> {
 public:
  VerifyStream(ServiceState& state, Seats& seats, const CallOrigin& origin, size_t level)
      : StepStream(state, seats, Method::kVerify, origin), level_(level) {}

 private:
  absl::StatusOr<bool> Make(v1::VerifyProgress& progress) override {
    if (done_) return false;
    if (!keys_.has_value()) {
      keys_ = state().store.KeysOf(level_);
    } else {
      uint64_t read = 0;
      for (size_t n = 0; n < kStepReads && read < kStepReadBytes && next_ < keys_->size() && !Ending(); ++n) {
        read += Examine((*keys_)[next_++], progress);
      }
    }
    done_ = next_ == keys_->size();
    progress.set_chunks(chunks_);
    progress.set_bytes(bytes_);
    progress.set_total(keys_->size());
    progress.set_gone(gone_);
    progress.set_unreadable(unreadable_);
    progress.set_done(done_);
    return true;
  }

  uint64_t Examine(const ChunkKey& key, v1::VerifyProgress& progress) {
    const absl::StatusOr<uint64_t> examined = state().store.Examine(key, level_);
    if (absl::IsNotFound(examined.status())) {
      ++gone_;
      return 0;
    }
    ++chunks_;
    if (examined.ok()) {
      bytes_ += *examined;
      return *examined;
    }
    if (!absl::IsDataLoss(examined.status())) {
      ++unreadable_;
      return 0;
    }
    v1::DamagedChunk& damaged = *progress.add_damaged();
    damaged.set_key(DigestToWire(key));
    damaged.set_detail(WireText(MessageOf(examined.status())));
    return 0;
  }

  const size_t level_;
  std::optional<std::vector<ChunkKey>> keys_;
  size_t next_ = 0;
  bool done_ = false;
  uint64_t chunks_ = 0;
  uint64_t bytes_ = 0;
  uint64_t gone_ = 0;
  uint64_t unreadable_ = 0;
};
static_assert(kStepReads <= 256, "VerifyProgress names at most so many damaged chunks");

template <typename Stream>
Stream* Started(Stream* stream) {
  stream->Start();
  return stream;
}

}  // namespace

grpc::ServerWriteReactor<v1::HeldChunksPage>* StartHeldChunks(ServiceState& state, Seats& seats,
                                                              const CallOrigin& origin, const ChunkFilter& filter) {
  return Started(new HeldChunksStream(state, seats, origin, filter));
}

grpc::ServerWriteReactor<v1::ClearProgress>* StartClear(ServiceState& state, Seats& seats, const CallOrigin& origin,
                                                        const SpaceId& space, const std::optional<ChunkKey>& under) {
  return Started(new ClearStream(state, seats, origin, space, under));
}

grpc::ServerWriteReactor<v1::VerifyProgress>* StartVerify(ServiceState& state, Seats& seats, const CallOrigin& origin,
                                                          size_t level) {
  return Started(new VerifyStream(state, seats, origin, level));
}

}  // namespace kdn
