// SharedMemory: a node's shared memory, mapped for reading.
//
// What lies there is the node's to change once it was given back, and whenever the node pleases: copy first, verify the
// copy, believe that.
//
// Thread-safety: a value that does not change.
#ifndef KDN_KDN_CLIENT_BULK_SHARED_MEMORY_H_
#define KDN_KDN_CLIENT_BULK_SHARED_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "storage/base/buffer.h"
#include "storage/base/unique_fd.h"

namespace kdn {

class SharedMemory {
 public:
  // DATA_LOSS when `descriptor` is not memory of that size which stays that size.
  static absl::StatusOr<std::shared_ptr<const SharedMemory>> Map(const UniqueFd& descriptor, uint64_t size);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Empty when that is not all inside.
  ByteSpan At(uint64_t offset, uint64_t size) const;

 private:
  SharedMemory(const uint8_t* base, uint64_t size) : base_(base), size_(size) {}

  const uint8_t* const base_;
  const uint64_t size_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BULK_SHARED_MEMORY_H_
