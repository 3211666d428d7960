#include "storage/disk/segment_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr uint64_t kStageBytes = uint64_t{4} << 20;  // written at once
constexpr uint64_t kRunBytes = uint64_t{8} << 20;    // neighbours that share a buffer when they are read
constexpr uint64_t kReadBytes = uint64_t{1} << 20;   // read at once

// To whoever stores, a disk is full or it has failed.
absl::Status AsDiskFailure(const absl::Status& status) {
  if (status.ok() || absl::IsResourceExhausted(status)) return status;
  return Unavailable("{}", MessageOf(status));
}

// Copies what it is given through aligned memory to the disk, in large writes.
class StagedWriter {
 public:
  StagedWriter(File& file, uint64_t offset, PooledBuffer stage)
      : file_(file), offset_(offset), stage_(std::move(stage)) {}

  absl::Status Append(ByteSpan bytes) {
    while (!bytes.empty()) {
      const size_t n = std::min(bytes.size(), stage_.size() - filled_);
      std::memcpy(stage_.data() + filled_, bytes.data(), n);
      KDN_RETURN_IF_ERROR(Advance(n));
      bytes = bytes.subspan(n);
    }
    return absl::OkStatus();
  }

  // Zeros up to `position`, counted from where writing began.
  absl::Status PadTo(uint64_t position) {
    while (written_ + filled_ < position) {
      const size_t n = std::min<uint64_t>(position - written_ - filled_, stage_.size() - filled_);
      std::memset(stage_.data() + filled_, 0, n);
      KDN_RETURN_IF_ERROR(Advance(n));
    }
    return absl::OkStatus();
  }

  absl::Status Flush() {
    const size_t n = std::exchange(filled_, 0);
    KDN_RETURN_IF_ERROR(WriteFully(file_, offset_ + written_, stage_.span().first(n)));
    written_ += n;
    return absl::OkStatus();
  }

 private:
  absl::Status Advance(size_t n) {
    filled_ += n;
    return filled_ == stage_.size() ? Flush() : absl::OkStatus();
  }

  File& file_;
  const uint64_t offset_;
  PooledBuffer stage_;
  size_t filled_ = 0;
  uint64_t written_ = 0;
};

// Parts that lie side by side and are read into one buffer.
struct Run {
  uint64_t begin = 0;
  uint64_t end = 0;
  PooledBuffer buffer;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentStore>> SegmentStore::Open(const SegmentStoreOptions& options) {
  std::unique_ptr<SegmentStore> store(new SegmentStore(options));
  MutexLock lock(store->mu_);
  KDN_ASSIGN_OR_RETURN(const std::vector<uint32_t> segments, store->files_.List());
  for (const uint32_t id : segments) {
    const auto segment = std::make_shared<Segment>();
    segment->id = id;
    segment->sealed = true;
    store->segments_[id] = segment;
  }
  return store;
}

SegmentStore::SegmentStore(const SegmentStoreOptions& options)
    : options_(options),
      files_(options.file_system == nullptr ? FileSystem::Posix() : *options.file_system, options.path,
             options.direct_io, options.max_open_files),
      buffers_(options.max_idle_buffer_bytes),
      io_(options.io_threads),
      reclaimer_(files_, io_) {}

SegmentStore::~SegmentStore() = default;

absl::StatusOr<Extent> SegmentStore::Append(const ChunkKey& key, std::span<const ByteSpan> slabs) {
  ExtentLayout layout;
  for (const ByteSpan slab : slabs) layout.Add(slab.size());
  reclaimer_.WaitUntilQueued(options_.segment_bytes);
  absl::StatusOr<Extent> extent = TryAppend(key, slabs, layout.length());
  if (!absl::IsResourceExhausted(extent.status()) || reclaimer_.dead_bytes() == 0) return extent;
  // There may be room when all that was freed has come back.
  reclaimer_.WaitUntilIdle();
  return TryAppend(key, slabs, layout.length());
}

absl::StatusOr<Extent> SegmentStore::TryAppend(const ChunkKey& key, std::span<const ByteSpan> slabs, uint64_t bytes) {
  Extent extent;
  {
    MutexLock lock(mu_);
    KDN_ASSIGN_OR_RETURN(extent, Reserve(bytes));
  }
  const absl::Status written = AsDiskFailure(WriteExtent(extent, key, slabs));
  {
    MutexLock lock(mu_);
    const SegmentPtr segment = segments_.at(extent.segment);
    if (written.ok()) {
      ++segment->written;
      return extent;
    }
    // What is wrong with a file need not be wrong with the next one.
    if (!absl::IsResourceExhausted(written)) Seal(segment);
  }
  Reclaim(extent);
  return written;
}

absl::StatusOr<Extent> SegmentStore::Reserve(uint64_t bytes) {
  if (!recovered_) return FailedPrecondition("segment store {}: Recover comes before Append", options_.path);
  if (bytes / kDiskBlock > UINT32_MAX)
    return InvalidArgument("an extent of {} bytes is more than a segment holds", bytes);
  while (active_ == nullptr || (active_->end > 0 && active_->end + bytes > options_.segment_bytes)) {
    if (starting_) {
      changed_.Wait(mu_);
    } else {
      KDN_RETURN_IF_ERROR(StartSegment());
    }
  }
  const Extent extent{.segment = active_->id,
                      .first_block = static_cast<uint32_t>(active_->end / kDiskBlock),
                      .blocks = static_cast<uint32_t>(bytes / kDiskBlock)};
  active_->end += bytes;
  active_->live_bytes += bytes;
  return extent;
}

absl::Status SegmentStore::StartSegment() {
  starting_ = true;
  if (active_ != nullptr) Seal(active_);
  const auto segment = std::make_shared<Segment>();
  segment->id = next_segment_++;

  mu_.Unlock();
  const absl::StatusOr<std::shared_ptr<File>> file = files_.Create(segment->id);
  mu_.Lock();

  starting_ = false;
  changed_.NotifyAll();
  if (!file.ok()) return AsDiskFailure(file.status());
  direct_ = (*file)->direct();
  segments_[segment->id] = segment;
  active_ = segment;
  return absl::OkStatus();
}

absl::Status SegmentStore::WriteExtent(const Extent& extent, const ChunkKey& key, std::span<const ByteSpan> slabs) {
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, files_.Get(extent.segment));
  StagedWriter writer(*file, extent.offset(), buffers_.Get(std::min(extent.length(), kStageBytes)));
  std::array<uint8_t, kExtentHeaderSize> header;
  EncodeExtentHeader(extent, key, header);
  KDN_RETURN_IF_ERROR(writer.Append(header));
  ExtentLayout layout;
  for (const ByteSpan slab : slabs) {
    KDN_RETURN_IF_ERROR(writer.PadTo(layout.Add(slab.size()).offset));
    KDN_RETURN_IF_ERROR(writer.Append(slab));
  }
  KDN_RETURN_IF_ERROR(writer.PadTo(extent.length()));
  return writer.Flush();
}

absl::Status SegmentStore::Sync(const Extent& extent) {
  MutexLock lock(mu_);
  const auto it = segments_.find(extent.segment);
  if (it == segments_.end()) return NotFound("segment {:08x} is gone", extent.segment);
  const SegmentPtr segment = it->second;
  const uint64_t wanted = segment->written;
  while (segment->failure.ok() && segment->synced < wanted) {
    if (segment->syncing) {
      changed_.Wait(mu_);
    } else {
      SyncSegment(segment);
    }
  }
  return segment->synced >= wanted ? absl::OkStatus() : segment->failure;
}

void SegmentStore::SyncSegment(const SegmentPtr& segment) {
  const uint64_t covers = segment->written;
  const bool new_entry = !segment->entry_synced;
  segment->syncing = true;
  ++syncs_;

  mu_.Unlock();
  const absl::StatusOr<std::shared_ptr<File>> file = files_.Get(segment->id);
  absl::Status synced = file.ok() ? (*file)->Sync() : file.status();
  if (synced.ok() && new_entry) synced = files_.SyncDirectory();
  mu_.Lock();

  segment->syncing = false;
  if (synced.ok()) {
    segment->synced = covers;
    segment->entry_synced = true;
  } else {
    segment->failure = AsDiskFailure(synced);
    Seal(segment);
  }
  changed_.NotifyAll();
}

// By value: `active_` itself may be what is passed.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void SegmentStore::Seal(SegmentPtr segment) {
  segment->sealed = true;
  if (active_ == segment) active_ = nullptr;
  if (segment->live_bytes == 0 && segments_.erase(segment->id) > 0) reclaimer_.Remove(segment->id, 0);
}

void SegmentStore::Free(const Extent& extent) {
  {
    MutexLock lock(mu_);
    const auto held = holders_.find(extent);
    if (held != holders_.end()) {
      held->second.freed = true;
      return;
    }
  }
  Reclaim(extent);
}

void SegmentStore::Reclaim(const Extent& extent) {
  MutexLock lock(mu_);
  const auto it = segments_.find(extent.segment);
  if (it == segments_.end()) return;
  Segment& segment = *it->second;
  segment.live_bytes -= std::min(segment.live_bytes, extent.length());
  if (segment.live_bytes == 0 && segment.sealed) {
    segments_.erase(it);
    reclaimer_.Remove(extent.segment, extent.length());
  } else {
    reclaimer_.Punch(extent.segment, extent.offset(), extent.length());
  }
}

SegmentStore::Pin SegmentStore::Hold(const Extent& extent) {
  MutexLock lock(mu_);
  ++holders_[extent].count;
  return Pin(this, extent);
}

SegmentStore::Pin& SegmentStore::Pin::operator=(Pin&& other) noexcept {
  if (this != &other) {
    Release();
    store_ = std::exchange(other.store_, nullptr);
    extent_ = other.extent_;
  }
  return *this;
}

void SegmentStore::Pin::Release() {
  if (store_ != nullptr) std::exchange(store_, nullptr)->Release(extent_);
}

void SegmentStore::Release(const Extent& extent) {
  {
    MutexLock lock(mu_);
    const auto held = holders_.find(extent);
    if (--held->second.count > 0) return;
    const bool freed = held->second.freed;
    holders_.erase(held);
    if (!freed) return;
  }
  Reclaim(extent);
}

absl::StatusOr<std::shared_ptr<File>> SegmentStore::FileOf(const Extent& extent) {
  {
    MutexLock lock(mu_);
    if (!segments_.contains(extent.segment)) {
      return NotFound("segment {:08x}, offset {}: the extent was freed", extent.segment, extent.offset());
    }
  }
  absl::StatusOr<std::shared_ptr<File>> file = files_.Get(extent.segment);
  if (absl::IsNotFound(file.status())) return DataLoss("{}; it was removed by others", MessageOf(file.status()));
  return file;
}

absl::StatusOr<std::vector<SharedBuffer>> SegmentStore::Read(const Pin& pin, const ChunkKey& key,
                                                             std::span<const PartRange> parts) {
  const Extent& extent = pin.extent();
  std::vector<Run> runs;
  std::vector<size_t> run_of;  // by part
  run_of.reserve(parts.size());
  for (const PartRange& part : parts) {
    if (part.size > extent.length() || part.offset > extent.length() - part.size) {
      return InvalidArgument("segment {:08x}, offset {}: an extent of {} bytes has no part at {} of {} bytes",
                             extent.segment, extent.offset(), extent.length(), part.offset, part.size);
    }
    const uint64_t begin = AlignDown(part.offset, kDiskBlock);
    const uint64_t end = AlignUp(part.offset + part.size, kDiskBlock);
    const bool neighbour = !runs.empty() && begin >= runs.back().begin && begin <= runs.back().end;
    if (neighbour && end <= runs.back().begin + kRunBytes) {
      runs.back().end = std::max(runs.back().end, end);
    } else {
      runs.push_back({begin, end, {}});
    }
    run_of.push_back(runs.size() - 1);
  }

  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, FileOf(extent));
  struct Transfer {
    uint64_t offset = 0;  // in the file
    MutableByteSpan bytes;
    absl::Status status;
  };
  std::vector<Transfer> transfers;
  for (Run& run : runs) {
    run.buffer = buffers_.Get(run.end - run.begin);
    const MutableByteSpan all = run.buffer.span();
    for (uint64_t at = 0; at < all.size();) {
      // A slab of 1 MiB that does not begin at a block's start is still read at once.
      const uint64_t left = all.size() - at;
      const uint64_t n = left < kReadBytes + kReadBytes / 2 ? left : kReadBytes;
      transfers.push_back({extent.offset() + run.begin + at, all.subspan(at, n), absl::OkStatus()});
      at += n;
    }
  }
  io_.ForEach(transfers.size(), [&](size_t i) {
    Transfer& transfer = transfers[i];
    transfer.status = ReadFully(*file, transfer.offset, transfer.bytes);
  });
  for (const Transfer& transfer : transfers) {
    KDN_RETURN_IF_ERROR(Annotate(transfer.status, files_.PathOf(extent.segment)));
  }

  std::vector<SharedBuffer> shared;
  for (Run& run : runs) {
    if (run.begin == 0 && run.end > 0) {
      KDN_RETURN_IF_ERROR(CheckExtentHeader(run.buffer.span().first(kExtentHeaderSize), extent, key));
    }
    shared.push_back(std::move(run.buffer).Share());
  }
  std::vector<SharedBuffer> bytes;
  bytes.reserve(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    bytes.push_back(shared[run_of[i]].Slice(parts[i].offset - runs[run_of[i]].begin, parts[i].size));
  }
  return bytes;
}

absl::Status SegmentStore::Check(const Pin& pin, const ChunkKey& key) {
  const PartRange header{.offset = 0, .size = kExtentHeaderSize};
  return Read(pin, key, {&header, 1}).status();
}

SegmentStore::Stats SegmentStore::GetStats() const {
  MutexLock lock(mu_);
  Stats stats{.segments = segments_.size(), .dead_bytes = reclaimer_.dead_bytes(), .syncs = syncs_, .direct = direct_};
  for (const auto& [id, segment] : segments_) stats.live_bytes += segment->live_bytes;
  return stats;
}

}  // namespace kdn
