#include "storage/tier/lease_table.h"

#include <gtest/gtest.h>

namespace kdn {
namespace {

ChunkKey Key(uint32_t n) {
  ChunkKey key;
  std::memcpy(key.bytes.data(), &n, sizeof n);
  return key;
}

class LeaseTableTest : public ::testing::Test {
 protected:
  uint64_t Add(std::vector<ChunkKey> keys, absl::Duration duration) {
    return leases_.Add(keys, clock_.Now() + duration).value();
  }

  ManualClock clock_;
  LeaseTable leases_{clock_};
};

TEST_F(LeaseTableTest, PinEndsWithItsLease) {
  Add({Key(1)}, absl::Seconds(10));
  clock_.Advance(absl::Seconds(9));
  EXPECT_TRUE(leases_.IsPinned(Key(1)));
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(leases_.IsPinned(Key(1)));
  EXPECT_EQ(leases_.Count().leases, 0u);
}

TEST_F(LeaseTableTest, KeyStaysPinnedWhileAnyLeaseHoldsIt) {
  const uint64_t first = Add({Key(1), Key(2)}, absl::Seconds(10));
  Add({Key(1)}, absl::Seconds(20));
  ASSERT_TRUE(leases_.Remove(first).ok());
  EXPECT_TRUE(leases_.IsPinned(Key(1)));
  EXPECT_FALSE(leases_.IsPinned(Key(2)));
}

TEST_F(LeaseTableTest, RemovingAnExpiredLeaseIsNotFound) {
  const uint64_t lease = Add({Key(1)}, absl::Seconds(10));
  clock_.Advance(absl::Seconds(10));
  EXPECT_TRUE(absl::IsNotFound(leases_.Remove(lease)));
  EXPECT_TRUE(absl::IsNotFound(leases_.Remove(lease + 1)));
}

TEST_F(LeaseTableTest, KeyNamedTwiceInOneLeaseIsReleasedOnce) {
  const uint64_t lease = Add({Key(1), Key(1)}, absl::Seconds(10));
  EXPECT_EQ(leases_.Count().pinned_chunks, 1u);
  ASSERT_TRUE(leases_.Remove(lease).ok());
  EXPECT_FALSE(leases_.IsPinned(Key(1)));
}

TEST_F(LeaseTableTest, NarrowedLeaseLetsGoOfTheRest) {
  const uint64_t lease = Add({Key(1), Key(2), Key(3)}, absl::Seconds(10));
  EXPECT_EQ(leases_.Narrow(lease, [](const ChunkKey& key) { return key == Key(2); }), 1u);
  EXPECT_FALSE(leases_.IsPinned(Key(1)));
  EXPECT_TRUE(leases_.IsPinned(Key(2)));
}

TEST_F(LeaseTableTest, LeasesAreBoundedUntilSomeExpire) {
  for (size_t i = 0; i < LeaseTable::kMaxLeases; ++i) Add({Key(1)}, absl::Seconds(10));
  EXPECT_TRUE(absl::IsResourceExhausted(leases_.Add({}, clock_.Now() + absl::Seconds(1)).status()));
  clock_.Advance(absl::Seconds(10));
  EXPECT_TRUE(leases_.Add({}, clock_.Now() + absl::Seconds(1)).ok());
}

TEST_F(LeaseTableTest, PinnedKeysAreBounded) {
  std::vector<ChunkKey> keys;
  for (uint32_t i = 0; i < LeaseTable::kMaxPins; ++i) keys.push_back(Key(i));
  const uint64_t lease = Add(keys, absl::Seconds(10));
  const std::vector<ChunkKey> one_more = {Key(0)};
  EXPECT_TRUE(absl::IsResourceExhausted(leases_.Add(one_more, clock_.Now() + absl::Seconds(1)).status()));
  ASSERT_TRUE(leases_.Remove(lease).ok());
  EXPECT_TRUE(leases_.Add(one_more, clock_.Now() + absl::Seconds(1)).ok());
}

}  // namespace
}  // namespace kdn
