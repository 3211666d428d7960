// AsyncClient: fetches and lookups that run while the engine goes on.
//
//   AsyncClient async(client);
//   FetchCall call = async.StartFetch(hit.HitChunks(), kv, {.deadline = absl::Milliseconds(500)});
//   ComputeSomethingElse();
//   const absl::StatusOr<FetchReport>& got = call.Wait();
//
// A deadline counts from Start…: what is still waiting for its turn by then ends, as a miss by kDeadline. Calls begin
// in the order in which they were started. What may run and wait is bounded: what does not fit is a call that is done
// at once, missed by kRefused.
//
// Callbacks run on threads of the AsyncClient, each once, after the call is done; Wait may return before. They must be
// quick, and must not destroy the AsyncClient. What they throw is dropped; what a call throws is its result, as
// INTERNAL or a miss by kInternal.
//
// Thread-safety: all methods may be called from any thread. The destructor cancels all calls, waits until none uses any
// memory of the engine and all callbacks have returned; calls that a callback starts meanwhile end as cancelled, and
// without a callback. Handles may outlive it.
#ifndef KDN_KDN_CLIENT_ASYNC_ASYNC_CLIENT_H_
#define KDN_KDN_CLIENT_ASYNC_ASYNC_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/client.h"

namespace kdn {

struct AsyncOptions {
  size_t max_calls = 4;       // that run at once; each has a thread
  size_t max_waiting = 1024;  // that wait for their turn; more are refused
  // Raw bytes that the calls under way may ask for, all together. A call for more than that runs alone.
  uint64_t max_bytes_in_flight = uint64_t{4} << 30;
};

namespace async_internal {
class Queue;
template <typename Result>
class Call;
}  // namespace async_internal

// A call that was started. Copies are the same call; dropping them does not end it.
template <typename Result>
class AsyncCall {
 public:
  // Waits until the call is done. From then on nothing of it touches the destination.
  const Result& Wait() const;
  // False when the call was not done by then.
  bool WaitUntil(absl::Time time) const;
  bool done() const;
  // Null until the call is done.
  const Result* result() const;

  // A call that has not begun ends at once, missed by kCancelled. A fetch that runs ends soon; what had come by then
  // counts. A lookup that runs goes on to its end.
  void Cancel() const;

 private:
  friend class AsyncClient;
  AsyncCall(std::shared_ptr<async_internal::Queue> queue, std::shared_ptr<async_internal::Call<Result>> call);

  std::shared_ptr<async_internal::Queue> queue_;
  std::shared_ptr<async_internal::Call<Result>> call_;
};

using FetchCall = AsyncCall<absl::StatusOr<FetchReport>>;
using LookupCall = AsyncCall<PrefixHit>;

class AsyncClient {
 public:
  explicit AsyncClient(std::shared_ptr<Client> client, const AsyncOptions& options = {});
  ~AsyncClient();
  AsyncClient(const AsyncClient&) = delete;
  AsyncClient& operator=(const AsyncClient&) = delete;

  // As Client::Fetch. The destination's memory must stay, and must not be used, until the call is done; its block table
  // is copied. INVALID_ARGUMENT also when `options.cancel` is given: FetchCall::Cancel takes its place.
  FetchCall StartFetch(std::vector<ChunkRef> chunks, KvLayout destination, FetchOptions options,
                       std::function<void(const absl::StatusOr<FetchReport>&)> on_done = {});

  // As Client::LookupPrefix.
  LookupCall StartLookup(std::vector<Token> tokens, const LookupOptions& options,
                         std::function<void(const PrefixHit&)> on_done = {});

 private:
  uint64_t BytesOf(std::span<const ChunkRef> chunks, LayerRange layers) const;

  const std::shared_ptr<Client> client_;
  std::vector<uint64_t> layer_bytes_;  // of one token
  std::shared_ptr<async_internal::Queue> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_ASYNC_CLIENT_H_
