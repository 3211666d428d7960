#include "kdn-client/bulk/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<std::shared_ptr<const SharedMemory>> SharedMemory::Map(const UniqueFd& descriptor, uint64_t size) {
  struct stat file = {};
  if (fstat(descriptor.get(), &file) != 0 || static_cast<uint64_t>(file.st_size) < size || size == 0) {
    return DataLoss("the node's shared memory is not of {} bytes", size);
  }
  // To read beyond memory that has shrunk would end this process.
  if (const int seals = fcntl(descriptor.get(), F_GET_SEALS); seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return DataLoss("the node's shared memory may shrink");
  }
  void* const base = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor.get(), 0);
  if (base == MAP_FAILED) return DataLoss("the node's shared memory cannot be mapped: {}", std::strerror(errno));
  return std::shared_ptr<const SharedMemory>(new SharedMemory(static_cast<const uint8_t*>(base), size));
}

SharedMemory::~SharedMemory() { munmap(const_cast<uint8_t*>(base_), size_); }

ByteSpan SharedMemory::At(uint64_t offset, uint64_t size) const {
  if (offset > size_ || size > size_ - offset) return {};
  return {base_ + offset, size};
}

}  // namespace kdn
