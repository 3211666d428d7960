#include "storage/analytics/request_feed.h"

#include <cstring>
#include <limits>
#include <utility>

#include "storage/base/split_mix.h"
#include "storage/base/status.h"

namespace kdn {

size_t FedRequest::Bytes() const {
  return sizeof(FedRequest) + keys.size() * sizeof(ChunkKey) +
         (positions.size() + prefix_tokens.size()) * sizeof(uint32_t);
}

bool InSample(const FedRequest& request, double sample) {
  if (sample >= 1) return true;
  uint64_t bits = 0;
  if (request.trace != TraceId{}) {
    std::memcpy(&bits, request.trace.data(), sizeof bits);
  } else if (!request.keys.empty()) {
    std::memcpy(&bits, request.keys.front().bytes.data() + 8, sizeof bits);
  }
  return static_cast<double>(Mix64(bits)) < sample * static_cast<double>(std::numeric_limits<uint64_t>::max());
}

void RequestListener::Offer(const FedRequestPtr& request) {
  if (options_.space.has_value() && *options_.space != request->space) return;
  if (!InSample(*request, options_.sample)) return;
  const size_t bytes = request->Bytes();
  MutexLock lock(mu_);
  if (queued_bytes_ + bytes > options_.queue_bytes) {
    ++dropped_;
    return;
  }
  queue_.push_back(request);
  queued_bytes_ += bytes;
}

RequestListener::Batch RequestListener::Take(size_t most_bytes) {
  Batch batch;
  size_t bytes = 0;
  MutexLock lock(mu_);
  while (!queue_.empty() && (batch.requests.empty() || bytes + queue_.front()->Bytes() <= most_bytes)) {
    bytes += queue_.front()->Bytes();
    batch.requests.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  queued_bytes_ -= bytes;
  batch.dropped = dropped_;
  batch.more = !queue_.empty();
  return batch;
}

void RequestFeed::ForgetGone() {
  std::erase_if(listeners_, [](const std::weak_ptr<RequestListener>& listener) { return listener.expired(); });
  listening_.store(!listeners_.empty(), std::memory_order_relaxed);
}

absl::StatusOr<std::shared_ptr<RequestListener>> RequestFeed::Listen(const ListenOptions& options) {
  auto listener = std::make_shared<RequestListener>(options);
  MutexLock lock(mu_);
  ForgetGone();
  if (listeners_.size() >= kMaxListeners) {
    return ResourceExhausted("{} record this node's requests already; end one of them", kMaxListeners);
  }
  listeners_.push_back(listener);
  listening_.store(true, std::memory_order_relaxed);
  return listener;
}

void RequestFeed::Publish(const FedRequestPtr& request) {
  std::vector<std::shared_ptr<RequestListener>> listening;
  {
    MutexLock lock(mu_);
    bool gone = false;
    for (const std::weak_ptr<RequestListener>& weak : listeners_) {
      std::shared_ptr<RequestListener> listener = weak.lock();
      gone |= listener == nullptr;
      if (listener != nullptr) listening.push_back(std::move(listener));
    }
    if (gone) ForgetGone();
  }
  for (const std::shared_ptr<RequestListener>& listener : listening) listener->Offer(request);
}

}  // namespace kdn
