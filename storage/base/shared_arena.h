// SharedArena: memory for buffers that other processes of this machine may map, to read and no more.
//
//   KDN_ASSIGN_OR_RETURN(const std::shared_ptr<SharedArena> arena, SharedArena::Create(8ull << 30));
//   Buffer slab(size, arena);
//   std::optional<uint64_t> offset = arena->OffsetOf(slab.span());
//   SendOverUnixSocket(arena->fd(), *offset, size);
//
// It is one memfd, sealed so that its size stays and nobody else can write to it; a peer that maps it reads whatever is
// there at that moment, so whoever lends bytes keeps them until they are given back, and whoever reads them verifies
// what it read. Pages take memory once they are written to, and keep it until the arena goes.
//
// Thread-safety: all methods may be called from any thread. It lives as long as its buffers, which share it.
#ifndef KDN_STORAGE_BASE_SHARED_ARENA_H_
#define KDN_STORAGE_BASE_SHARED_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "storage/base/buffer.h"
#include "storage/base/mutex.h"
#include "storage/base/unique_fd.h"

namespace kdn {

class SharedArena final : public BufferMemory {
 public:
  // With room for about `bytes`. UNAVAILABLE saying why when the system does not give it.
  static absl::StatusOr<std::shared_ptr<SharedArena>> Create(uint64_t bytes);
  ~SharedArena() override;

  uint8_t* Allocate(size_t size) override;
  void Free(uint8_t* p) override;

  // Where `bytes` lie in the memfd; nothing when they are not of this arena.
  std::optional<uint64_t> OffsetOf(ByteSpan bytes) const;

  // To be passed to peers, which can map it for reading alone.
  int fd() const { return fd_.get(); }
  uint64_t size() const { return size_; }
  uint64_t used_bytes() const;

 private:
  struct Heap;

  SharedArena(UniqueFd fd, uint8_t* base, uint64_t size);

  const UniqueFd fd_;
  uint8_t* const base_;
  const uint64_t size_;
  mutable Mutex mu_;
  Heap* const heap_ ABSL_PT_GUARDED_BY(mu_);  // lies at the beginning of the memory
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_SHARED_ARENA_H_
