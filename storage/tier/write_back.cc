#include "storage/tier/write_back.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "storage/base/status.h"

namespace kdn {

WriteBack::WriteBack(Tier& disk, KeyLocks& locks, uint64_t max_bytes, std::function<void()> written)
    : disk_(disk), locks_(locks), max_bytes_(max_bytes), written_(std::move(written)), thread_([this] { Run(); }) {}

WriteBack::~WriteBack() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  arrived_.NotifyAll();
  thread_.join();
}

void WriteBack::Enqueue(const Chunk& chunk) {
  const ChunkKey& key = chunk.manifest->key;
  const uint64_t bytes = chunk.manifest->EncodedBytes();
  {
    MutexLock lock(mu_);
    Remove(key);
    if (bytes > max_bytes_ - bytes_) {
      ++dropped_;
      return;
    }
    bytes_ += bytes;
    const uint64_t number = ++last_number_;
    order_.push_back({number, key});
    waiting_.emplace(key, Waiting{number, chunk});
  }
  arrived_.NotifyOne();
}

std::optional<Chunk> WriteBack::Find(const ChunkKey& key) {
  MutexLock lock(mu_);
  const auto it = waiting_.find(key);
  if (it == waiting_.end()) return std::nullopt;
  return it->second.chunk;
}

bool WriteBack::Cancel(const ChunkKey& key) {
  MutexLock lock(mu_);
  return Remove(key);
}

std::vector<ChunkKey> WriteBack::Keys() {
  std::vector<ChunkKey> keys;
  MutexLock lock(mu_);
  keys.reserve(waiting_.size());
  for (const auto& [key, waiting] : waiting_) keys.push_back(key);
  return keys;
}

bool WriteBack::Remove(const ChunkKey& key) {
  const auto it = waiting_.find(key);
  if (it == waiting_.end()) return false;
  bytes_ -= it->second.chunk.manifest->EncodedBytes();
  waiting_.erase(it);
  return true;
}

void WriteBack::Flush() {
  MutexLock lock(mu_);
  const uint64_t last = last_number_;
  while (!order_.empty() && order_.front().number <= last) finished_.Wait(mu_);
}

WriteBack::Counts WriteBack::Count() {
  MutexLock lock(mu_);
  return {.pending_bytes = bytes_, .dropped = dropped_};
}

void WriteBack::Run() {
  while (true) {
    Ticket ticket;
    {
      MutexLock lock(mu_);
      while (order_.empty() && !stopping_) arrived_.Wait(mu_);
      if (order_.empty()) return;
      ticket = order_.front();
    }
    Write(ticket);
    {
      MutexLock lock(mu_);
      order_.pop_front();
    }
    finished_.NotifyAll();
  }
}

void WriteBack::Write(const Ticket& ticket) {
  const KeyLocks::Hold hold(locks_, ticket.key);
  Chunk chunk;
  {
    MutexLock lock(mu_);
    const auto it = waiting_.find(ticket.key);
    if (it == waiting_.end() || it->second.number != ticket.number) return;  // cancelled or replaced
    chunk = it->second.chunk;
  }
  const bool wanted = disk_.Admits(*chunk.manifest);
  const absl::Status written = wanted ? disk_.Put(chunk, Ack::kMemory) : absl::OkStatus();
  if (wanted && written.ok()) written_();
  MutexLock lock(mu_);
  Remove(ticket.key);
  if (written.ok()) return;
  ++dropped_;
  if ((dropped_ & (dropped_ - 1)) == 0) {  // the 1st, 2nd, 4th, 8th…: a full disk must not fill the log as well
    spdlog::warn("write-back: {} chunks did not reach the disk so far; the last one: {}", dropped_, MessageOf(written));
  }
}

}  // namespace kdn
