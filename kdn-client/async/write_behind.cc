#include "kdn-client/async/write_behind.h"

#include <exception>
#include <new>
#include <random>
#include <utility>

#include "kdn-client/async/wait.h"
#include "kdn-client/kv_view.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

// Whether the node asks for a pause, or may be back after one.
bool AsksForPause(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status);
}

std::vector<absl::Status> StoreAll(Client& client, std::span<const ChunkRef> chunks, const KvLayout& source,
                                   const StoreOptions& options) {
  absl::Status failure;
  try {
    absl::StatusOr<StoreReport> report = client.Store(chunks, source, options);
    if (report.ok()) return std::move(report->chunks);
    failure = report.status();
  } catch (const std::exception& e) {
    failure = Internal("the store threw: {}", e.what());
  } catch (...) {
    failure = Internal("the store threw");
  }
  return std::vector<absl::Status>(chunks.size(), failure);
}

}  // namespace

WriteBehind::WriteBehind(std::shared_ptr<Client> client, WriteBehindOptions options, const Clock& clock)
    : client_(std::move(client)),
      options_(std::move(options)),
      clock_(clock),
      backoff_(options_.first_backoff, options_.max_backoff, std::random_device()()) {
  for (size_t i = 0; i < std::max<size_t>(options_.threads, 1); ++i) threads_.emplace_back([this] { Run(); });
}

WriteBehind::~WriteBehind() {
  if (options_.flush_on_close > absl::ZeroDuration()) Flush(clock_.Now() + options_.flush_on_close);
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<size_t> WriteBehind::Offer(std::span<const ChunkRef> chunks, const KvLayout& source,
                                          const StoreOptions& options) {
  KDN_ASSIGN_OR_RETURN(const KvView view, KvView::Over(client_->space(), source, {}));
  KDN_RETURN_IF_ERROR(Check(chunks, view, options));
  size_t taken = 0;
  for (Batch& batch : Reserve(chunks, options, clock_.Now())) {
    try {
      batch.stage = std::make_unique<KvStage>(client_->space(), batch.chunks);
    } catch (const std::bad_alloc&) {
      Drop(batch);
      continue;
    }
    batch.stage->CopyFrom(view);
    taken += batch.chunks.size();
    Enqueue(std::move(batch));
  }
  return taken;
}

bool WriteBehind::Flush(absl::Time deadline) {
  MutexLock lock(mu_);
  const uint64_t end = next_number_;
  while (!unfinished_.empty() && *unfinished_.begin() < end) {
    if (clock_.Now() >= deadline) return false;
    changed_.WaitUntil(mu_, SteadyTime(clock_, deadline));
  }
  return true;
}

WriteBehindStats WriteBehind::Stats() const {
  MutexLock lock(mu_);
  WriteBehindStats stats = stats_;
  stats.queued_chunks = held_.size();
  return stats;
}

absl::Status WriteBehind::Check(std::span<const ChunkRef> chunks, const KvView& view, const StoreOptions& options) {
  KDN_RETURN_IF_ERROR(view.CheckHoldsAllHeads());
  KDN_RETURN_IF_ERROR(view.CheckChunks(chunks));
  KDN_RETURN_IF_ERROR(FindCodec(options.codec).status());
  if (options.ttl <= absl::ZeroDuration()) return InvalidArgument("store for a positive time");
  return absl::OkStatus();
}

std::vector<WriteBehind::Batch> WriteBehind::Reserve(std::span<const ChunkRef> chunks, const StoreOptions& options,
                                                     absl::Time now) {
  std::vector<uint64_t> costs;
  costs.reserve(chunks.size());
  for (const ChunkRef& chunk : chunks) costs.push_back(KvStage::BytesOf(client_->space(), chunk));

  std::vector<Batch> batches;
  MutexLock lock(mu_);
  stats_.offered += chunks.size();
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (held_.contains(chunks[i].key)) {
      ++stats_.duplicates;
      continue;
    }
    if (held_.size() >= options_.max_chunks || costs[i] > options_.max_bytes ||
        stats_.queued_bytes > options_.max_bytes - costs[i]) {
      ++stats_.dropped_full;
      continue;
    }
    held_.insert(chunks[i].key);
    stats_.queued_bytes += costs[i];
    if (batches.empty() || batches.back().bytes + costs[i] > options_.batch_bytes ||
        batches.back().chunks.size() == kMaxChunksPerCall) {
      Batch batch;
      batch.options = options;
      batch.trace = CurrentTrace();
      batch.deadline = now + options.deadline;
      batch.expires = now + options.ttl;
      batches.push_back(std::move(batch));
    }
    batches.back().bytes += costs[i];
    batches.back().chunks.push_back(chunks[i]);
    batches.back().last.emplace_back();
  }
  return batches;
}

void WriteBehind::Drop(const Batch& batch) {
  MutexLock lock(mu_);
  for (const ChunkRef& chunk : batch.chunks) held_.erase(chunk.key);
  stats_.dropped_full += batch.chunks.size();
  stats_.queued_bytes -= batch.bytes;
}

void WriteBehind::Enqueue(Batch batch) {
  MutexLock lock(mu_);
  batch.number = next_number_++;
  unfinished_.insert(batch.number);
  waiting_.push_back(std::move(batch));
  changed_.NotifyAll();
}

void WriteBehind::Run() {
  Batch batch;
  Fate fate = Fate::kStore;
  while (Take(batch, fate)) {
    const std::vector<Result> results = fate == Fate::kStore ? Store(batch) : End(batch, fate);
    Conclude(std::exchange(batch, {}), results);
  }
}

bool WriteBehind::Take(Batch& batch, Fate& fate) {
  MutexLock lock(mu_);
  while (true) {
    auto at = waiting_.begin();
    if (stopping_) {
      if (at == waiting_.end()) return false;
      fate = Fate::kCancel;
    } else if (const auto late = FirstLate(); late != waiting_.end()) {
      at = late;
      fate = Fate::kLate;
    } else if (at != waiting_.end() && clock_.Now() >= paused_until_) {
      fate = Fate::kStore;
    } else {
      absl::Time next = at == waiting_.end() ? absl::InfiniteFuture() : paused_until_;
      for (const Batch& other : waiting_) next = std::min(next, other.end());
      changed_.WaitUntil(mu_, SteadyTime(clock_, next));
      continue;
    }
    batch = std::move(*at);
    waiting_.erase(at);
    return true;
  }
}

std::deque<WriteBehind::Batch>::iterator WriteBehind::FirstLate() {
  const absl::Time now = clock_.Now();
  return std::find_if(waiting_.begin(), waiting_.end(), [&](const Batch& batch) { return batch.end() <= now; });
}

std::vector<WriteBehind::Result> WriteBehind::Store(Batch& batch) {
  const absl::Time begin = clock_.Now();
  StoreOptions options = batch.options;
  options.deadline = std::min(batch.deadline - begin, options_.call_timeout);
  options.ttl = batch.expires - begin;
  const ScopedTrace scope(batch.trace);
  const std::vector<absl::Status> statuses = StoreAll(*client_, batch.chunks, batch.stage->layout(), options);

  const bool time_left = clock_.Now() < batch.end();
  std::vector<Result> results;
  std::vector<ChunkRef> again;
  std::vector<absl::Status> last;
  absl::Status pause;
  for (size_t i = 0; i < batch.chunks.size(); ++i) {
    const absl::Status& status = statuses[i];
    if (AsksForPause(status)) pause = status;
    if (AsksForPause(status) && time_left) {
      again.push_back(batch.chunks[i]);
      last.push_back(status);
    } else {
      results.push_back(
          {batch.chunks[i].key, status, status.ok() ? &WriteBehindStats::stored : &WriteBehindStats::failed});
    }
  }
  batch.chunks = std::move(again);
  batch.last = std::move(last);

  MutexLock lock(mu_);
  if (pause.ok()) {
    backoff_.Reset();
  } else {
    paused_until_ = clock_.Now() + backoff_.Next();
    ++stats_.retries;
    stats_.last_failure = std::move(pause);
  }
  return results;
}

std::vector<WriteBehind::Result> WriteBehind::End(Batch& batch, Fate fate) {
  std::vector<Result> results;
  for (size_t i = 0; i < batch.chunks.size(); ++i) {
    const ChunkKey& key = batch.chunks[i].key;
    if (fate == Fate::kCancel) {
      results.push_back({key, Cancelled("the chunk was dropped when the client closed"), &WriteBehindStats::cancelled});
    } else if (!batch.last[i].ok()) {
      results.push_back({key, batch.last[i], &WriteBehindStats::failed});
    } else {
      results.push_back(
          {key, DeadlineExceeded("its deadline passed before its turn"), &WriteBehindStats::dropped_late});
    }
  }
  batch.chunks.clear();
  batch.last.clear();
  return results;
}

void WriteBehind::Conclude(Batch batch, const std::vector<Result>& results) {
  const uint64_t number = batch.number;
  const bool over = batch.chunks.empty();
  if (over) batch.stage.reset();
  {
    MutexLock lock(mu_);
    for (const Result& result : results) {
      held_.erase(result.key);
      ++(stats_.*result.counted_as);
      if (result.counted_as == &WriteBehindStats::failed) stats_.last_failure = result.status;
    }
    if (over) {
      stats_.queued_bytes -= batch.bytes;
    } else {
      waiting_.push_front(std::move(batch));
      changed_.NotifyAll();
    }
  }
  for (const Result& result : results) {
    if (options_.on_result == nullptr) break;
    try {
      options_.on_result(result.key, result.status);
    } catch (...) {  // the caller was told that it is dropped
      continue;
    }
  }
  if (!over) return;
  MutexLock lock(mu_);
  unfinished_.erase(number);
  changed_.NotifyAll();
}

}  // namespace kdn
