// RequestFeed: what a node is asked for, as it comes, for the few who listen: their queues are bounded, and what does
// not fit is dropped and counted. While nobody listens it costs a load of one atomic a call.
//
//   const auto listener = feed.Listen({.sample = 0.1});          // RESOURCE_EXHAUSTED: too many listen
//   …
//   if (feed.wanted()) feed.Publish(std::make_shared<const FedRequest>(…));
//   …
//   const RequestListener::Batch batch = (*listener)->Take(1 << 20);
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_ANALYTICS_REQUEST_FEED_H_
#define KDN_STORAGE_ANALYTICS_REQUEST_FEED_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/mutex.h"
#include "storage/base/trace_context.h"
#include "storage/format/digest.h"

namespace kdn {

// A lookup, or a fetch of what no lookup had named, as one node was asked it.
struct FedRequest {
  absl::Time time;
  SpaceId space;
  TraceId trace = {};  // zero: it had none
  bool fetch = false;
  std::vector<ChunkKey> keys = {};
  std::vector<uint32_t> positions = {};      // of the keys in their prompt; empty: they are its first ones
  std::vector<uint32_t> prefix_tokens = {};  // up to the end of each chunk; 0: not known
  uint32_t chunk_tokens = 0;                 // of the space's usual chunk; 0: not known

  size_t Bytes() const;  // what it takes, about
};
using FedRequestPtr = std::shared_ptr<const FedRequest>;

struct ListenOptions {
  std::optional<SpaceId> space = std::nullopt;  // of this one alone
  double sample = 1;                            // the part of all requests, by trace id
  size_t queue_bytes = size_t{32} << 20;
};

// Whether a sample has the request: the same answer at every node that one trace touches. Requests without a trace go
// by their first key.
bool InSample(const FedRequest& request, double sample);

class RequestListener {
 public:
  explicit RequestListener(const ListenOptions& options) : options_(options) {}

  struct Batch {
    std::vector<FedRequestPtr> requests;
    uint64_t dropped = 0;  // since the listener began
    bool more = false;     // there are others yet
  };
  // The oldest ones, of `most_bytes` together, but at least one where there is any.
  Batch Take(size_t most_bytes);

 private:
  friend class RequestFeed;
  void Offer(const FedRequestPtr& request);

  const ListenOptions options_;
  Mutex mu_;
  std::deque<FedRequestPtr> queue_ ABSL_GUARDED_BY(mu_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
};

class RequestFeed {
 public:
  static constexpr size_t kMaxListeners = 4;

  // It listens until it is destroyed.
  absl::StatusOr<std::shared_ptr<RequestListener>> Listen(const ListenOptions& options);

  bool wanted() const { return listening_.load(std::memory_order_relaxed); }
  void Publish(const FedRequestPtr& request);

 private:
  void ForgetGone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::atomic<bool> listening_{false};
  Mutex mu_;
  std::vector<std::weak_ptr<RequestListener>> listeners_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_REQUEST_FEED_H_
