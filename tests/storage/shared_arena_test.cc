#include "storage/base/shared_arena.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace kdn {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::shared_ptr<SharedArena> MakeArena(uint64_t bytes) { return SharedArena::Create(bytes).value(); }

void Fill(Buffer& buffer, uint8_t value) { std::memset(buffer.data(), value, buffer.size()); }
bool IsFilled(ByteSpan bytes, uint8_t value) {
  return std::ranges::all_of(bytes, [value](uint8_t byte) { return byte == value; });
}

// As a peer has it.
class ReadOnlyMapping {
 public:
  explicit ReadOnlyMapping(const SharedArena& arena)
      : size_(arena.size()), base_(mmap(nullptr, size_, PROT_READ, MAP_SHARED, arena.fd(), 0)) {}
  ~ReadOnlyMapping() { munmap(base_, size_); }
  ReadOnlyMapping(const ReadOnlyMapping&) = delete;
  ReadOnlyMapping& operator=(const ReadOnlyMapping&) = delete;

  ByteSpan At(uint64_t offset, size_t size) const { return {static_cast<const uint8_t*>(base_) + offset, size}; }

 private:
  const uint64_t size_;
  void* const base_;
};

TEST(SharedArenaTest, NobodyElseCanMapItForWriting) {
  const std::shared_ptr<SharedArena> arena = MakeArena(kMiB);
  void* const second = mmap(nullptr, arena->size(), PROT_READ | PROT_WRITE, MAP_SHARED, arena->fd(), 0);
  EXPECT_EQ(second, MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  const uint8_t byte = 1;
  EXPECT_EQ(pwrite(arena->fd(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, EPERM);

  void* const readable = mmap(nullptr, arena->size(), PROT_READ, MAP_SHARED, arena->fd(), 0);
  ASSERT_NE(readable, MAP_FAILED);
  EXPECT_NE(mprotect(readable, arena->size(), PROT_READ | PROT_WRITE), 0) << "nor may a mapping become writable";
  munmap(readable, arena->size());
}

TEST(SharedArenaTest, ItsSizeStays) {
  const std::shared_ptr<SharedArena> arena = MakeArena(3 * kMiB + 1);
  EXPECT_GE(arena->size(), 3 * kMiB + 1);
  struct stat file = {};
  ASSERT_EQ(fstat(arena->fd(), &file), 0);
  EXPECT_EQ(static_cast<uint64_t>(file.st_size), arena->size());
  for (const uint64_t size : {uint64_t{0}, kMiB, 64 * kMiB}) {
    EXPECT_EQ(ftruncate(arena->fd(), static_cast<off_t>(size)), -1) << size;
    EXPECT_EQ(errno, EPERM);
  }
  const int seals = fcntl(arena->fd(), F_GET_SEALS);
  EXPECT_NE(seals & F_SEAL_SHRINK, 0);
  EXPECT_NE(seals & F_SEAL_SEAL, 0);
}

TEST(SharedArenaTest, OffsetsAreWherePeersFindTheBytes) {
  const std::shared_ptr<SharedArena> arena = MakeArena(4 * kMiB);
  const ReadOnlyMapping peer(*arena);
  std::vector<Buffer> buffers;
  for (uint8_t i = 1; i <= 50; ++i) {
    buffers.emplace_back(i * 1000, arena);
    Fill(buffers.back(), i);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers.back().data()) % 64, 0u);
  }
  for (uint8_t i = 1; i <= 50; ++i) {
    Buffer& buffer = buffers[i - 1];
    const std::optional<uint64_t> offset = arena->OffsetOf(buffer.span());
    ASSERT_TRUE(offset.has_value());
    ASSERT_LE(*offset + buffer.size(), arena->size());
    EXPECT_TRUE(IsFilled(peer.At(*offset, buffer.size()), i)) << int{i};
    EXPECT_EQ(arena->OffsetOf(buffer.span().subspan(17)), *offset + 17);
  }
}

TEST(SharedArenaTest, OtherMemoryHasNoOffset) {
  const std::shared_ptr<SharedArena> arena = MakeArena(kMiB);
  const std::shared_ptr<SharedArena> other = MakeArena(kMiB);
  Buffer heap(100);
  Buffer foreign(100, other);
  EXPECT_EQ(arena->OffsetOf(heap.span()), std::nullopt);
  EXPECT_EQ(arena->OffsetOf(foreign.span()), std::nullopt);
  EXPECT_EQ(arena->OffsetOf({}), std::nullopt);
}

TEST(SharedArenaTest, WhenItIsFullBuffersComeFromTheHeap) {
  const std::shared_ptr<SharedArena> arena = MakeArena(4 * kMiB);
  std::vector<Buffer> buffers;
  size_t in_arena = 0;
  for (uint8_t i = 0; i < 8; ++i) {
    buffers.emplace_back(kMiB, arena);
    Fill(buffers.back(), i);
    if (arena->OffsetOf(buffers.back().span()).has_value()) ++in_arena;
  }
  EXPECT_EQ(in_arena, 3u) << "its own book-keeping takes a little of the fourth";
  for (uint8_t i = 0; i < 8; ++i) EXPECT_TRUE(IsFilled(buffers[i].span(), i)) << int{i};
  EXPECT_EQ(arena->Allocate(SIZE_MAX / 2), nullptr);
}

TEST(SharedArenaTest, FreedMemoryIsUsedAgain) {
  const std::shared_ptr<SharedArena> arena = MakeArena(4 * kMiB);
  const uint64_t used_by_none = arena->used_bytes();
  for (int round = 0; round < 100; ++round) {
    Buffer large(3 * kMiB, arena);
    ASSERT_TRUE(arena->OffsetOf(large.span()).has_value()) << round;
    EXPECT_GE(arena->used_bytes(), used_by_none + 3 * kMiB);
  }
  // Many small ones, freed in another order, leave room for a large one.
  std::vector<SharedBuffer> small;
  for (int i = 0; i < 3000; ++i) small.push_back(Buffer(1000, arena).Freeze());
  for (size_t i = 0; i < small.size(); i += 2) small[i] = {};
  small.clear();
  EXPECT_EQ(arena->used_bytes(), used_by_none);
  Buffer large(3 * kMiB, arena);
  EXPECT_TRUE(arena->OffsetOf(large.span()).has_value());
}

TEST(SharedArenaTest, BuffersOutliveWhoeverMadeIt) {
  SharedBuffer kept;
  std::weak_ptr<SharedArena> watched;
  {
    const std::shared_ptr<SharedArena> arena = MakeArena(kMiB);
    watched = arena;
    Buffer buffer(1000, arena);
    Fill(buffer, 7);
    kept = std::move(buffer).Freeze();
  }
  EXPECT_FALSE(watched.expired());
  EXPECT_TRUE(IsFilled(kept, 7));
  kept = {};
  EXPECT_TRUE(watched.expired()) << "and it goes with the last of them";
}

TEST(SharedArenaTest, ThreadsDoNotGetInEachOthersWay) {
  const std::shared_ptr<SharedArena> arena = MakeArena(8 * kMiB);
  const uint64_t used_by_none = arena->used_bytes();
  const auto work = [&arena](uint8_t value) {
    for (size_t round = 0; round < 500; ++round) {
      Buffer a(1 + round * 37 % 9000, arena);
      Fill(a, value);
      Buffer b(1 + round * 91 % 500, arena);
      Fill(b, value);
      const SharedBuffer frozen = std::move(a).Freeze();
      ASSERT_TRUE(IsFilled(frozen, value));
      ASSERT_TRUE(IsFilled(b.span(), value));
    }
  };
  std::vector<std::thread> threads;
  for (uint8_t i = 1; i <= 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(arena->used_bytes(), used_by_none);
}

}  // namespace
}  // namespace kdn
