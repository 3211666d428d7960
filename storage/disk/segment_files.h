// SegmentFiles: the files of a segment store, by number, of which a bounded number is open at a time.
//
// Thread-safety: all methods may be called from any thread; no lock is held over I/O.
#ifndef KDN_STORAGE_DISK_SEGMENT_FILES_H_
#define KDN_STORAGE_DISK_SEGMENT_FILES_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/mutex.h"
#include "storage/disk/file.h"

namespace kdn {

class SegmentFiles {
 public:
  SegmentFiles(FileSystem& file_system, std::string directory, bool direct, size_t max_open);

  // The numbers of the segments in the directory, ascending; makes the directory when it is absent. Files that are no
  // segments are left alone.
  absl::StatusOr<std::vector<uint32_t>> List();
  absl::StatusOr<std::shared_ptr<File>> Create(uint32_t segment);
  absl::StatusOr<std::shared_ptr<File>> Get(uint32_t segment);
  // Who has the file from Get goes on using it.
  absl::Status Remove(uint32_t segment);
  // Makes Create and Remove survive power loss.
  absl::Status SyncDirectory();

  std::string PathOf(uint32_t segment) const;

 private:
  struct Open {
    uint32_t segment = 0;
    std::shared_ptr<File> file;
  };

  void Remember(uint32_t segment, const std::shared_ptr<File>& file);

  FileSystem& file_system_;
  const std::string directory_;
  const bool direct_;
  const size_t max_open_;

  Mutex mu_;
  std::list<Open> open_ ABSL_GUARDED_BY(mu_);  // used most recently first
  absl::flat_hash_map<uint32_t, std::list<Open>::iterator> by_segment_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_DISK_SEGMENT_FILES_H_
