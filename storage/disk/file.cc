#include "storage/disk/file.h"

#include "storage/base/status.h"

namespace kdn {
namespace {

// How much of a transfer of `n` bytes counts: a direct file goes on at a whole block only.
size_t Progress(const File& file, size_t n, size_t wanted) {
  return file.direct() && n < wanted ? AlignDown(n, kDiskBlock) : n;
}

}  // namespace

absl::Status ReadFully(File& file, uint64_t offset, MutableByteSpan bytes) {
  while (!bytes.empty()) {
    KDN_ASSIGN_OR_RETURN(const size_t transferred, file.Read(offset, bytes));
    const size_t n = Progress(file, transferred, bytes.size());
    if (n == 0)
      return DataLoss("the file ends {} bytes before offset {}", bytes.size() - transferred, offset + bytes.size());
    offset += n;
    bytes = bytes.subspan(n);
  }
  return absl::OkStatus();
}

absl::Status WriteFully(File& file, uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    KDN_ASSIGN_OR_RETURN(const size_t transferred, file.Write(offset, bytes));
    const size_t n = Progress(file, transferred, bytes.size());
    if (n == 0)
      return Unavailable("a write of {} bytes at offset {} does not progress; mend the disk", bytes.size(), offset);
    offset += n;
    bytes = bytes.subspan(n);
  }
  return absl::OkStatus();
}

}  // namespace kdn
