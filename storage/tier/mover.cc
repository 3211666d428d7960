#include "storage/tier/mover.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "storage/base/status.h"
#include "storage/recode.h"

namespace kdn {
namespace {

// Of a disk's budget, so much is kept free for what comes next, if there is a colder one.
constexpr uint64_t kHeadroomFraction = 16;
constexpr uint64_t kMaxHeadroom = uint64_t{1} << 30;
constexpr size_t kMaxUses = 1024;
constexpr auto kExpiryInterval = std::chrono::seconds(1);

// `chunk` as disk `level` keeps what comes down to it.
Chunk Encoded(const Chunk& chunk, const DiskLevel& level, IoPool& coders) {
  if (level.codec == nullptr) return chunk;
  const bool allowed = chunk.retention.lossy_allowed || level.codec->fidelity() == Fidelity::kExact;
  const absl::StatusOr<const Codec*> lossless = FindCodec(CodecId::kZstd);
  absl::StatusOr<Chunk> recoded = Recode(chunk, allowed || !lossless.ok() ? *level.codec : **lossless, coders);
  if (recoded.ok()) return *std::move(recoded);
  spdlog::warn("chunk {} is kept as it is by a colder disk: {}", chunk.manifest->key.ToShortHex(),
               MessageOf(recoded.status()));
  return chunk;
}

// Threads beside the mover's own: half of the machine in all; the other half is for those who wait.
size_t CodersFor(const std::vector<DiskLevel>& disks) {
  const bool codes = std::ranges::any_of(disks, [](const DiskLevel& disk) { return disk.codec != nullptr; });
  return codes ? std::max(2U, std::thread::hardware_concurrency()) / 2 - 1 : 0;
}

}  // namespace

uint64_t HeadroomOf(uint64_t budget_bytes) { return std::min(budget_bytes / kHeadroomFraction, kMaxHeadroom); }

Chunk ChunkOf(TierRead read) {
  Chunk chunk{.manifest = std::move(read.manifest), .slabs = {}, .retention = read.retention};
  chunk.slabs.reserve(read.slabs.size());
  for (SlabBytes& slab : read.slabs) chunk.slabs.push_back(std::move(slab.bytes));
  return chunk;
}

Mover::Mover(Tier& memory, const std::vector<DiskLevel>& disks, KeyLocks& locks, TierObserver* observer)
    : memory_(memory), disks_(disks), locks_(locks), observer_(observer), coders_(CodersFor(disks)), thread_([this] {
        Run();
      }) {}

Mover::~Mover() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  arrived_.NotifyAll();
  thread_.join();
}

void Mover::Stored() {
  {
    MutexLock lock(mu_);
    if (stored_) return;
    stored_ = true;
  }
  arrived_.NotifyOne();
}

void Mover::Used(const ChunkKey& key, size_t level) {
  {
    MutexLock lock(mu_);
    if (uses_.size() >= kMaxUses || !waiting_.insert(key).second) return;
    uses_.push_back({key, level});
  }
  arrived_.NotifyOne();
}

void Mover::Settle() {
  MutexLock lock(mu_);
  while (busy_ || stored_ || !uses_.empty()) settled_.Wait(mu_);
}

void Mover::Run() {
  while (true) {
    std::deque<Use> uses;
    bool stored = false;
    {
      MutexLock lock(mu_);
      busy_ = false;
      if (!stored_ && uses_.empty()) settled_.NotifyAll();
      const auto wake = std::chrono::steady_clock::now() + kExpiryInterval;
      while (!stopping_ && !stored_ && uses_.empty()) {
        if (!arrived_.WaitUntil(mu_, wake)) break;
      }
      if (stopping_) return;
      busy_ = true;
      stored = std::exchange(stored_, false);
      uses.swap(uses_);
      waiting_.clear();
    }
    memory_.DropExpired();
    for (const DiskLevel& disk : disks_) disk.tier->DropExpired();
    if (stored) MakeHeadroom();
    // Room after each, or the next one would push out what could still move down.
    for (const Use& use : uses) {
      if (MoveUp(use)) MakeHeadroom();
    }
  }
}

void Mover::MakeHeadroom() {
  for (size_t level = 0; level + 1 < disks_.size(); ++level) {
    Tier& tier = *disks_[level].tier;
    for (const ChunkKey& key : tier.TakeSurplus(HeadroomOf(tier.Stats().budget_bytes))) MoveDown(key, level);
  }
}

void Mover::MoveDown(const ChunkKey& key, size_t from) {
  const KeyLocks::Hold hold(locks_, key);
  Tier& upper = *disks_[from].tier;
  const DiskLevel& lower = disks_[from + 1];
  absl::StatusOr<TierRead> read = upper.Examine(key);
  absl::Status moved = read.status();
  bool arrived = false;
  uint64_t bytes = 0;
  if (read.ok()) {
    bytes = read->manifest->EncodedBytes();
    const Chunk chunk = Encoded(ChunkOf(*std::move(read)), lower, coders_);
    if (lower.tier->Admits(*chunk.manifest)) {
      moved = lower.tier->Put(chunk, Ack::kDurable);
      arrived = moved.ok();
      if (arrived) demoted_.fetch_add(1);
    }
  }
  if (!moved.ok() && !absl::IsNotFound(moved)) {
    spdlog::warn("chunk {} did not move to a colder disk and is evicted: {}", key.ToShortHex(), MessageOf(moved));
  }
  // What could not be read has been told of already.
  if (bytes > 0 && !arrived && observer_ != nullptr) {
    observer_->ChunkLeft(upper.kind(), key, bytes, LeftBy::kEviction);
  }
  const absl::Status erased = upper.Erase(key);
  if (!erased.ok() && !absl::IsNotFound(erased)) {
    spdlog::warn("{}; chunk {} is removed later", MessageOf(erased), key.ToShortHex());
  }
}

bool Mover::MoveUp(const Use& use) {
  const KeyLocks::Hold hold(locks_, use.key);
  Tier& from = *disks_[use.level].tier;
  const absl::StatusOr<ManifestPtr> manifest = from.Find(use.key);
  if (!manifest.ok()) return false;  // it is gone, or on its way elsewhere
  const auto holds = [&](Tier& tier) {
    const absl::StatusOr<ManifestPtr> there = tier.Find(use.key);
    return there.ok() && (*there)->fidelity >= (*manifest)->fidelity;
  };
  Tier& first = *disks_.front().tier;
  const bool to_memory = !holds(memory_) && memory_.Admits(**manifest);
  const bool to_disk = use.level > 0 && !holds(first) && first.Admits(**manifest);
  if (!to_memory && !to_disk) return false;

  absl::StatusOr<TierRead> read = holds(memory_) ? memory_.Examine(use.key) : from.Examine(use.key);
  if (!read.ok()) return false;  // the tier has told of it
  const Chunk chunk = ChunkOf(*std::move(read));
  if (to_memory) memory_.Put(chunk, Ack::kMemory).IgnoreError();  // no room: it stays on disk
  if (!to_disk || !first.Put(chunk, Ack::kDurable).ok()) return false;
  promoted_.fetch_add(1);
  from.Erase(use.key).IgnoreError();
  return true;
}

}  // namespace kdn
