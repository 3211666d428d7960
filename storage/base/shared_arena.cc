#include "storage/base/shared_arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <cerrno>
#include <cstring>
#include <functional>
#include <new>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

namespace ipc = boost::interprocess;

constexpr size_t kAlignment = 64;
constexpr uint64_t kSmallest = uint64_t{1} << 20;

absl::Status SystemError(const char* what, uint64_t bytes) {
  return Unavailable("shared memory of {} bytes: {}: {}", bytes, what, std::strerror(errno));
}

}  // namespace

// Best fit in a balanced tree; SharedArena does the locking.
struct SharedArena::Heap : ipc::rbtree_best_fit<ipc::null_mutex_family> {
  explicit Heap(uint64_t bytes) : rbtree_best_fit(bytes, sizeof(Heap) - sizeof(rbtree_best_fit)) {}
};

absl::StatusOr<std::shared_ptr<SharedArena>> SharedArena::Create(uint64_t bytes) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t size = (std::max(bytes, kSmallest) + page - 1) / page * page;
  UniqueFd fd(memfd_create("kdn-slabs", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return SystemError("memfd_create", size);
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return SystemError("ftruncate", size);
  void* const base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (base == MAP_FAILED) return SystemError("mmap", size);
  // Made before the seals, this mapping alone can write.
  std::shared_ptr<SharedArena> arena(new SharedArena(std::move(fd), static_cast<uint8_t*>(base), size));
  if (fcntl(arena->fd(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
    return SystemError("sealing it", size);
  }
  return arena;
}

SharedArena::SharedArena(UniqueFd fd, uint8_t* base, uint64_t size)
    : fd_(std::move(fd)), base_(base), size_(size), heap_(new (base) Heap(size)) {}

SharedArena::~SharedArena() {
  MutexLock lock(mu_);
  munmap(base_, size_);
}

uint8_t* SharedArena::Allocate(size_t size) {
  MutexLock lock(mu_);
  return static_cast<uint8_t*>(heap_->allocate_aligned(std::max<size_t>(size, 1), kAlignment));
}

void SharedArena::Free(uint8_t* p) {
  MutexLock lock(mu_);
  heap_->deallocate(p);
}

std::optional<uint64_t> SharedArena::OffsetOf(ByteSpan bytes) const {
  const std::less<> before;
  if (before(bytes.data(), base_) || !before(bytes.data(), base_ + size_)) return std::nullopt;
  return static_cast<uint64_t>(bytes.data() - base_);
}

uint64_t SharedArena::used_bytes() const {
  MutexLock lock(mu_);
  return size_ - heap_->get_free_memory();
}

}  // namespace kdn
