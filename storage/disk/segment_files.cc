#include "storage/disk/segment_files.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr std::string_view kSuffix = ".seg";
constexpr size_t kDigits = 8;

std::optional<uint32_t> SegmentOf(std::string_view name) {
  if (name.size() != kDigits + kSuffix.size() || !name.ends_with(kSuffix)) return std::nullopt;
  const char* const end = name.data() + kDigits;
  uint32_t segment = 0;
  const auto [parsed, error] = std::from_chars(name.data(), end, segment, 16);
  if (error != std::errc() || parsed != end || segment == 0) return std::nullopt;
  return segment;
}

}  // namespace

SegmentFiles::SegmentFiles(FileSystem& file_system, std::string directory, bool direct, size_t max_open)
    : file_system_(file_system), directory_(std::move(directory)), direct_(direct), max_open_(max_open) {}

std::string SegmentFiles::PathOf(uint32_t segment) const {
  return fmt::format("{}/{:0{}x}{}", directory_, segment, kDigits, kSuffix);
}

absl::StatusOr<std::vector<uint32_t>> SegmentFiles::List() {
  KDN_RETURN_IF_ERROR(file_system_.CreateDirectories(directory_));
  KDN_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system_.List(directory_));
  std::vector<uint32_t> segments;
  for (const std::string& name : names) {
    if (const std::optional<uint32_t> segment = SegmentOf(name)) segments.push_back(*segment);
  }
  std::sort(segments.begin(), segments.end());
  return segments;
}

absl::StatusOr<std::shared_ptr<File>> SegmentFiles::Create(uint32_t segment) {
  KDN_ASSIGN_OR_RETURN(std::shared_ptr<File> file,
                       file_system_.Open(PathOf(segment), {.create = true, .direct = direct_}));
  Remember(segment, file);
  return file;
}

absl::StatusOr<std::shared_ptr<File>> SegmentFiles::Get(uint32_t segment) {
  {
    MutexLock lock(mu_);
    const auto it = by_segment_.find(segment);
    if (it != by_segment_.end()) {
      open_.splice(open_.begin(), open_, it->second);
      return it->second->file;
    }
  }
  KDN_ASSIGN_OR_RETURN(std::shared_ptr<File> file,
                       file_system_.Open(PathOf(segment), {.create = false, .direct = direct_}));
  Remember(segment, file);
  return file;
}

void SegmentFiles::Remember(uint32_t segment, const std::shared_ptr<File>& file) {
  std::list<Open> closed;  // closed when the lock is gone
  MutexLock lock(mu_);
  if (by_segment_.contains(segment)) return;  // another thread was first
  open_.push_front({segment, file});
  by_segment_[segment] = open_.begin();
  while (open_.size() > max_open_) {
    by_segment_.erase(open_.back().segment);
    closed.splice(closed.end(), open_, std::prev(open_.end()));
  }
}

absl::Status SegmentFiles::Remove(uint32_t segment) {
  std::list<Open> closed;
  {
    MutexLock lock(mu_);
    const auto it = by_segment_.find(segment);
    if (it != by_segment_.end()) {
      closed.splice(closed.end(), open_, it->second);
      by_segment_.erase(it);
    }
  }
  return file_system_.Remove(PathOf(segment));
}

absl::Status SegmentFiles::SyncDirectory() { return file_system_.SyncDirectory(directory_); }

}  // namespace kdn
