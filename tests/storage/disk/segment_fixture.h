// What the tests of the segment store share: chunks made of numbers, and the way from slabs to parts and back.
#ifndef KDN_TESTS_STORAGE_DISK_SEGMENT_FIXTURE_H_
#define KDN_TESTS_STORAGE_DISK_SEGMENT_FIXTURE_H_

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "storage/disk/segment_store.h"

namespace kdn {

inline ChunkKey KeyOf(uint64_t number) {
  ChunkKey key;
  std::memcpy(key.bytes.data(), &number, sizeof number);
  return key;
}

// Slabs of the given sizes whose bytes follow from the chunk's number.
class TestChunk {
 public:
  TestChunk(uint64_t number, const std::vector<size_t>& sizes) : key(KeyOf(number)) {
    std::mt19937_64 random(number);
    for (const size_t size : sizes) {
      std::string bytes(size, '\0');
      for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        const uint64_t word = random();
        std::memcpy(bytes.data() + i, &word, std::min(sizeof word, size - i));
      }
      slabs.push_back(std::move(bytes));
    }
  }

  std::vector<ByteSpan> spans() const {
    std::vector<ByteSpan> all;
    for (const std::string& slab : slabs) all.push_back(AsBytes(slab));
    return all;
  }
  std::vector<PartRange> parts() const {
    ExtentLayout layout;
    std::vector<PartRange> all;
    for (const std::string& slab : slabs) all.push_back(layout.Add(slab.size()));
    return all;
  }

  ChunkKey key;
  std::vector<std::string> slabs;
};

inline absl::StatusOr<Extent> Append(SegmentStore& store, const TestChunk& chunk) {
  return store.Append(chunk.key, chunk.spans());
}

// The chunk's slabs as the store gives them back.
inline absl::StatusOr<std::vector<std::string>> Read(SegmentStore& store, const Extent& extent,
                                                     const TestChunk& chunk) {
  const SegmentStore::Pin pin = store.Hold(extent);
  absl::StatusOr<std::vector<SharedBuffer>> bytes = store.Read(pin, chunk.key, chunk.parts());
  if (!bytes.ok()) return bytes.status();
  std::vector<std::string> slabs;
  for (const SharedBuffer& slab : *bytes) slabs.emplace_back(AsStringView(slab));
  return slabs;
}

inline std::unique_ptr<SegmentStore> OpenStore(const SegmentStoreOptions& options, std::vector<Extent> live = {},
                                               std::vector<Extent>* missing = nullptr) {
  absl::StatusOr<std::unique_ptr<SegmentStore>> store = SegmentStore::Open(options);
  if (!store.ok()) {
    ADD_FAILURE() << store.status();
    return nullptr;
  }
  absl::StatusOr<std::vector<Extent>> gone = (*store)->Recover(std::move(live));
  if (!gone.ok()) {
    ADD_FAILURE() << gone.status();
    return nullptr;
  }
  if (missing != nullptr) *missing = *std::move(gone);
  return *std::move(store);
}

MATCHER_P(HasCode, code, "") {
  *result_listener << arg;
  return arg.code() == code;
}

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_DISK_SEGMENT_FIXTURE_H_
