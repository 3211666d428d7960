#include "tests/storage/disk/memory_file_system.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

class MemoryFileSystem::OpenFile final : public File {
 public:
  OpenFile(MemoryFileSystem& files, std::shared_ptr<Node> node, bool direct)
      : files_(files), node_(std::move(node)), direct_(direct) {}

  absl::StatusOr<size_t> Read(uint64_t offset, MutableByteSpan bytes) override {
    KDN_RETURN_IF_ERROR(CheckAligned(offset, bytes.size(), bytes.data()));
    MutexLock lock(files_.mu_);
    KDN_RETURN_IF_ERROR(files_.read_failure_);
    const Content& content = node_->now;
    const uint64_t left = content.size - std::min(content.size, offset);
    const size_t n = std::min({bytes.size(), static_cast<size_t>(left), files_.longest_transfer_});
    for (size_t i = 0; i < n;) {
      const uint64_t at = offset + i;
      const size_t in_block = std::min<size_t>(n - i, kDiskBlock - at % kDiskBlock);
      const auto block = content.blocks.find(at / kDiskBlock);
      if (block == content.blocks.end()) {
        std::memset(bytes.data() + i, 0, in_block);
      } else {
        std::memcpy(bytes.data() + i, block->second.data() + at % kDiskBlock, in_block);
      }
      i += in_block;
    }
    return n;
  }

  absl::StatusOr<size_t> Write(uint64_t offset, ByteSpan bytes) override {
    KDN_RETURN_IF_ERROR(CheckAligned(offset, bytes.size(), bytes.data()));
    MutexLock lock(files_.mu_);
    size_t n = std::min(bytes.size(), files_.longest_transfer_);
    if (!files_.write_failure_.ok()) {
      if (files_.write_failure_after_ == 0) return files_.write_failure_;
      n = std::min<size_t>(n, files_.write_failure_after_);
      files_.write_failure_after_ -= n;
    }
    size_t done = 0;
    while (done < n) {
      const uint64_t at = offset + done;
      const size_t in_block = std::min<size_t>(n - done, kDiskBlock - at % kDiskBlock);
      auto block = node_->now.blocks.find(at / kDiskBlock);
      if (block == node_->now.blocks.end()) {
        if ((files_.allocated_blocks_ + 1) * kDiskBlock > files_.capacity_) break;
        ++files_.allocated_blocks_;
        block = node_->now.blocks.emplace(at / kDiskBlock, Block{}).first;
      }
      std::memcpy(block->second.data() + at % kDiskBlock, bytes.data() + done, in_block);
      done += in_block;
    }
    if (done == 0 && n > 0) return ResourceExhausted("no space left");
    node_->now.size = std::max(node_->now.size, offset + done);
    return done;
  }

  absl::Status Sync() override {
    MutexLock lock(files_.mu_);
    KDN_RETURN_IF_ERROR(files_.sync_failure_);
    ++files_.syncs_;
    node_->synced = node_->now;
    return absl::OkStatus();
  }

  absl::Status PunchHole(uint64_t offset, uint64_t length) override {
    files_.BeforePunch();
    MutexLock lock(files_.mu_);
    if (!files_.can_punch_) return Unimplemented("no holes here");
    DropBlocks(offset / kDiskBlock, (offset + length) / kDiskBlock);
    return absl::OkStatus();
  }

  absl::Status Truncate(uint64_t size) override {
    MutexLock lock(files_.mu_);
    node_->now.size = size;
    DropBlocks(AlignUp(size, kDiskBlock) / kDiskBlock, std::numeric_limits<uint64_t>::max());
    return absl::OkStatus();
  }

  absl::StatusOr<Use> GetUse() override {
    MutexLock lock(files_.mu_);
    return Use{.size = node_->now.size, .allocated = node_->now.blocks.size() * kDiskBlock};
  }

  bool direct() const override { return direct_; }

 private:
  absl::Status CheckAligned(uint64_t offset, size_t size, const void* address) const {
    if (!direct_ || (offset | size | reinterpret_cast<uintptr_t>(address)) % kDiskBlock == 0) return absl::OkStatus();
    return InvalidArgument("direct transfer of {} bytes at {} is not aligned", size, offset);
  }

  void DropBlocks(uint64_t begin, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_.mu_) {
    auto& blocks = node_->now.blocks;
    for (auto it = blocks.lower_bound(begin); it != blocks.end() && it->first < end; it = blocks.erase(it)) {
      --files_.allocated_blocks_;
    }
  }

  MemoryFileSystem& files_;
  const std::shared_ptr<Node> node_;
  const bool direct_;
};

absl::StatusOr<std::unique_ptr<File>> MemoryFileSystem::Open(const std::string& path, OpenOptions options) {
  MutexLock lock(mu_);
  const auto it = now_.find(path);
  if (!options.create && it == now_.end()) return NotFound("{} does not exist", path);
  if (options.create && it != now_.end()) return FailedPrecondition("{} exists", path);
  if (options.create) return std::make_unique<OpenFile>(*this, now_[path] = std::make_shared<Node>(), options.direct);
  return std::make_unique<OpenFile>(*this, it->second, options.direct);
}

absl::Status MemoryFileSystem::Remove(const std::string& path) {
  MutexLock lock(mu_);
  const auto it = now_.find(path);
  if (it == now_.end()) return NotFound("{} does not exist", path);
  allocated_blocks_ -= it->second->now.blocks.size();
  now_.erase(it);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MemoryFileSystem::List(const std::string& path) {
  MutexLock lock(mu_);
  std::vector<std::string> names;
  for (const auto& [name, node] : now_) {
    if (name.starts_with(path + "/")) names.push_back(name.substr(path.size() + 1));
  }
  return names;
}

absl::Status MemoryFileSystem::SyncDirectory(const std::string&) {
  MutexLock lock(mu_);
  KDN_RETURN_IF_ERROR(sync_failure_);
  synced_ = now_;
  return absl::OkStatus();
}

void MemoryFileSystem::SetCapacity(uint64_t bytes) {
  MutexLock lock(mu_);
  capacity_ = bytes;
}
void MemoryFileSystem::SetLongestTransfer(size_t bytes) {
  MutexLock lock(mu_);
  longest_transfer_ = bytes;
}
void MemoryFileSystem::SetCanPunch(bool can_punch) {
  MutexLock lock(mu_);
  can_punch_ = can_punch;
}
void MemoryFileSystem::SetBeforePunch(std::function<void()> run) {
  MutexLock lock(mu_);
  before_punch_ = std::move(run);
}
void MemoryFileSystem::BeforePunch() {
  std::function<void()> run;
  {
    MutexLock lock(mu_);
    run = before_punch_;
  }
  run();
}
void MemoryFileSystem::FailReads(absl::Status status) {
  MutexLock lock(mu_);
  read_failure_ = std::move(status);
}
void MemoryFileSystem::FailWrites(absl::Status status, uint64_t after) {
  MutexLock lock(mu_);
  write_failure_ = std::move(status);
  write_failure_after_ = after;
}
void MemoryFileSystem::FailSyncs(absl::Status status) {
  MutexLock lock(mu_);
  sync_failure_ = std::move(status);
}

void MemoryFileSystem::FlipBit(const std::string& path, uint64_t offset) {
  MutexLock lock(mu_);
  now_.at(path)->now.blocks.at(offset / kDiskBlock)[offset % kDiskBlock] ^= 1;
}

// Every block is as it was synced, as it is now, or, in whole sectors, new at its front and old behind.
void MemoryFileSystem::CrashContent(Node& node, std::mt19937_64& random) {
  constexpr size_t kSector = 512;
  Content after = node.synced;
  if (random() % 2 == 0) after.size = node.now.size;
  std::set<uint64_t> numbers;
  for (const auto& [number, block] : node.now.blocks) numbers.insert(number);
  for (const auto& [number, block] : node.synced.blocks) numbers.insert(number);
  for (const uint64_t number : numbers) {
    const auto is = node.now.blocks.find(number);
    const auto was = node.synced.blocks.find(number);
    const uint64_t fate = random() % 3;
    if (fate == 0) continue;
    if (is == node.now.blocks.end()) {
      if (fate == 1) after.blocks.erase(number);
      continue;
    }
    Block torn = was == node.synced.blocks.end() ? Block{} : was->second;
    const size_t fresh = fate == 1 ? kDiskBlock : kSector * (random() % (kDiskBlock / kSector));
    std::copy_n(is->second.begin(), fresh, torn.begin());
    after.blocks[number] = torn;
  }
  after.blocks.erase(after.blocks.lower_bound(AlignUp(after.size, kDiskBlock) / kDiskBlock), after.blocks.end());
  node.now = node.synced = std::move(after);
}

void MemoryFileSystem::Crash(std::mt19937_64& random) {
  MutexLock lock(mu_);
  Directory after;
  for (const Directory* directory : {&now_, &synced_}) {
    const Directory& other = directory == &now_ ? synced_ : now_;
    for (const auto& [name, node] : *directory) {
      if (other.contains(name) || random() % 2 == 0) after[name] = node;
    }
  }
  std::set<Node*> crashed;
  allocated_blocks_ = 0;
  for (const auto& [name, node] : after) {
    if (crashed.insert(node.get()).second) CrashContent(*node, random);
    allocated_blocks_ += node->now.blocks.size();
  }
  now_ = synced_ = std::move(after);
}

uint64_t MemoryFileSystem::AllocatedBytes() {
  MutexLock lock(mu_);
  return allocated_blocks_ * kDiskBlock;
}

size_t MemoryFileSystem::FileCount() {
  MutexLock lock(mu_);
  return now_.size();
}

uint64_t MemoryFileSystem::syncs() {
  MutexLock lock(mu_);
  return syncs_;
}

}  // namespace kdn
