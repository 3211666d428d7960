// How a segment store finds its way back after a restart, and looks after the space that it takes.

#include <algorithm>

#include "storage/base/status.h"
#include "storage/disk/segment_store.h"

namespace kdn {
namespace {

// A file takes some blocks of the disk for its own map.
constexpr uint64_t kMapBytes = uint64_t{64} << 10;

}  // namespace

absl::StatusOr<std::vector<Extent>> SegmentStore::Recover(std::vector<Extent> live) {
  MutexLock lock(mu_);
  if (recovered_) return FailedPrecondition("segment store {}: Recover was called before", options_.path);
  std::sort(live.begin(), live.end());

  std::vector<Extent> missing;
  std::vector<uint32_t> emptied;
  auto next = live.begin();
  for (const auto& [id, segment] : segments_) {
    for (; next != live.end() && next->segment < id; ++next) missing.push_back(*next);
    const auto first = next;
    while (next != live.end() && next->segment == id) ++next;
    KDN_RETURN_IF_ERROR(RecoverSegment(*segment, {first, next}, missing));
    if (segment->live_bytes == 0) emptied.push_back(id);
  }
  missing.insert(missing.end(), next, live.end());

  // Greater than what the index ever named, so that a row whose removal is lost to a power failure names nothing else.
  if (!live.empty()) next_segment_ = std::max(next_segment_, live.back().segment + 1);
  if (!segments_.empty()) next_segment_ = std::max(next_segment_, segments_.rbegin()->first + 1);
  for (const uint32_t id : emptied) {
    segments_.erase(id);
    reclaimer_.Remove(id, 0);
  }
  recovered_ = true;
  return missing;
}

absl::Status SegmentStore::RecoverSegment(Segment& segment, std::span<const Extent> live,
                                          std::vector<Extent>& missing) {
  KDN_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, files_.Get(segment.id));
  KDN_ASSIGN_OR_RETURN(const File::Use use, file->GetUse());
  struct Gap {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  std::vector<Gap> gaps;
  uint64_t end = 0;
  for (const Extent& extent : live) {
    // Two rows that claim one place cannot both be right: the first one keeps it, until a checksum says otherwise.
    if (extent.blocks == 0 || extent.end() > use.size || extent.offset() < end) {
      missing.push_back(extent);
      continue;
    }
    if (extent.offset() > end) gaps.push_back({end, extent.offset() - end});
    segment.live_bytes += extent.length();
    end = extent.end();
  }
  segment.end = end;
  segment.written = 1;                    // a crash may have come before the sync of what was written
  if (end == 0) return absl::OkStatus();  // the caller removes it
  if (use.size > end) gaps.push_back({end, use.size - end});
  // Most gaps are holes already; only where the file takes more than its extents do, some are not.
  if (use.allocated <= segment.live_bytes + kMapBytes) return absl::OkStatus();
  for (const Gap& gap : gaps) reclaimer_.Punch(segment.id, gap.offset, gap.length);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SegmentStore::MeasureDiskBytes() {
  std::vector<uint32_t> ids;
  {
    MutexLock lock(mu_);
    for (const auto& [id, segment] : segments_) ids.push_back(id);
  }
  uint64_t bytes = 0;
  for (const uint32_t id : ids) {
    const absl::StatusOr<std::shared_ptr<File>> file = files_.Get(id);
    if (absl::IsNotFound(file.status())) continue;  // emptied meanwhile
    if (!file.ok()) return file.status();
    KDN_ASSIGN_OR_RETURN(const File::Use use, (*file)->GetUse());
    bytes += use.allocated;
  }
  return bytes;
}

std::vector<uint32_t> SegmentStore::SparseSegments(double dead_fraction) const {
  MutexLock lock(mu_);
  std::vector<uint32_t> sparse;
  for (const auto& [id, segment] : segments_) {
    const auto dead = static_cast<double>(reclaimer_.dead_bytes(id));
    const auto held = static_cast<double>(segment->live_bytes) + dead;
    if (segment->sealed && dead > 0 && dead >= dead_fraction * held) sparse.push_back(id);
  }
  return sparse;
}

}  // namespace kdn
