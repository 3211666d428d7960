// WriteBehind: stores that do not hold up the engine. Offer copies the KV and returns; threads encode and store it.
//
//   WriteBehind stores(client, {.max_bytes = uint64_t{1} << 30});
//   stores.Offer(hit.MissedChunks(), kv, {.deadline = absl::Seconds(30)});  // the engine may now overwrite kv
//
// Nothing ever waits for room: chunks beyond the bounds are dropped, and counted. A chunk that is on its way already is
// not taken twice; it is stored as it was offered first. A node that is away or overloaded is asked again after a
// pause, with the chunks that have time left.
//
// Each chunk that was taken ends in one of these: stored; dropped_late: its deadline, or its time to live, passed
// before its turn; failed, with the node's last answer; or cancelled, when the WriteBehind is destroyed.
//
// Thread-safety: all methods may be called from any thread. on_result is called on threads of the WriteBehind, must be
// quick, must not call Flush and must not destroy the WriteBehind; what it throws is dropped. The destructor waits as
// long as the options say, then drops what has not begun; a store under way is waited for, until its deadline at worst
// (see call_timeout).
#ifndef KDN_KDN_CLIENT_ASYNC_WRITE_BEHIND_H_
#define KDN_KDN_CLIENT_ASYNC_WRITE_BEHIND_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/async/kv_stage.h"
#include "kdn-client/client.h"
#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/trace_context.h"

namespace kdn {

struct WriteBehindOptions {
  uint64_t max_bytes = uint64_t{256} << 20;         // of KV that is held; a chunk's last part counts as a whole chunk
  size_t max_chunks = 4096;                         // that are held
  size_t threads = 1;                               // that encode and store
  uint64_t batch_bytes = uint64_t{32} << 20;        // of one call to the node, as long as one chunk is not larger
  absl::Duration call_timeout = absl::Seconds(10);  // of one call to the node, where chunks have more time than that
  absl::Duration first_backoff = absl::Milliseconds(20);
  absl::Duration max_backoff = absl::Seconds(2);
  absl::Duration flush_on_close = absl::ZeroDuration();                      // how long the destructor goes on storing
  std::function<void(const ChunkKey&, const absl::Status&)> on_result = {};  // for each chunk that was taken
};

struct WriteBehindStats {
  uint64_t offered = 0;  // chunks given to Offer: the sum of the next six, and of those that are held
  uint64_t stored = 0;
  uint64_t dropped_full = 0;
  uint64_t dropped_late = 0;
  uint64_t failed = 0;
  uint64_t duplicates = 0;
  uint64_t cancelled = 0;
  uint64_t queued_chunks = 0;  // held: waiting, or being stored
  uint64_t queued_bytes = 0;
  uint64_t retries = 0;       // calls after which the node was given a pause
  absl::Status last_failure;  // of a chunk that failed, or of a call that was retried
};

class WriteBehind {
 public:
  // `clock` decides what is late, and outlives this.
  explicit WriteBehind(std::shared_ptr<Client> client, WriteBehindOptions options = {},
                       const Clock& clock = Clock::Real());
  ~WriteBehind();
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Takes chunks to be stored as by Client::Store; the deadline and the time to live count from now. Returns how many
  // it took. The source may be overwritten once it has returned. INVALID_ARGUMENT, and nothing was taken or counted,
  // where Client::Store would say so.
  absl::StatusOr<size_t> Offer(std::span<const ChunkRef> chunks, const KvLayout& source, const StoreOptions& options);

  // Waits until all that was taken before the call has come to its end. False when it had not by `deadline`.
  bool Flush(absl::Time deadline);

  WriteBehindStats Stats() const;

 private:
  // Chunks that are stored by one call.
  struct Batch {
    uint64_t number = 0;
    std::unique_ptr<KvStage> stage;
    std::vector<ChunkRef> chunks;    // those that are still to be stored
    std::vector<absl::Status> last;  // how the last try of each of them failed; OK: none was made
    StoreOptions options;
    TraceContext trace;  // of whoever offered them
    absl::Time deadline;
    absl::Time expires;
    uint64_t bytes = 0;

    absl::Time end() const { return std::min(deadline, expires); }
  };
  enum class Fate : uint8_t { kStore, kLate, kCancel };
  struct Result {
    ChunkKey key;
    absl::Status status;
    uint64_t WriteBehindStats::*counted_as;
  };

  static absl::Status Check(std::span<const ChunkRef> chunks, const KvView& view, const StoreOptions& options);
  // Those of `chunks` for which there is room, in batches without a stage.
  std::vector<Batch> Reserve(std::span<const ChunkRef> chunks, const StoreOptions& options, absl::Time now);
  // There was no memory for the batch after all.
  void Drop(const Batch& batch);
  void Enqueue(Batch batch);
  void Run();
  // Waits for a batch that is to be stored, or that is late, or, once this is stopping, is to be cancelled. False when
  // nothing is left and nothing will come.
  bool Take(Batch& batch, Fate& fate);
  std::deque<Batch>::iterator FirstLate() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Tries to store the batch, and keeps in it what is to be tried again. Returns what has come to its end.
  std::vector<Result> Store(Batch& batch);
  // All chunks of the batch, as `fate` has it.
  std::vector<Result> End(Batch& batch, Fate fate);
  // Counts and tells the results; requeues what is left of the batch.
  void Conclude(Batch batch, const std::vector<Result>& results);

  const std::shared_ptr<Client> client_;
  const WriteBehindOptions options_;
  const Clock& clock_;

  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Batch> waiting_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<ChunkKey> held_ ABSL_GUARDED_BY(mu_);
  std::set<uint64_t> unfinished_ ABSL_GUARDED_BY(mu_);  // numbers of batches
  uint64_t next_number_ ABSL_GUARDED_BY(mu_) = 0;
  Backoff backoff_ ABSL_GUARDED_BY(mu_);
  absl::Time paused_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  WriteBehindStats stats_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;  // written by the constructor alone
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_ASYNC_WRITE_BEHIND_H_
