#include "storage/tier/residents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <map>

#include "storage/base/split_mix.h"
#include "storage/base/status.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

const absl::Time kStart = absl::FromUnixSeconds(1000);

ChunkKey ResidentKey(uint8_t n) {
  ChunkKey key;
  key.bytes.fill(n);
  return key;
}

SpaceId Space(uint8_t n) {
  SpaceId space;
  space.bytes.fill(n);
  return space;
}

ChunkFacts Facts(uint8_t n, uint64_t bytes) {
  return {.key = ResidentKey(n), .parent = {}, .tokens = 16, .bytes = bytes};
}

std::vector<ChunkKey> KeysOf(const std::vector<Residents::Gone>& gone) {
  std::vector<ChunkKey> keys;
  for (const Residents::Gone& chunk : gone) keys.push_back(chunk.key);
  return keys;
}

std::vector<ChunkKey> KeysOf(const Residents::Reserved& reserved) {
  EXPECT_TRUE(reserved.status.ok()) << reserved.status;
  return KeysOf(reserved.gone);
}

// Tells of pins only once it is asked for a chunk's: as if they came after the first look.
class LatePins final : public Pins {
 public:
  explicit LatePins(ChunkKey key) : key_(key) {}
  bool IsPinned(const ChunkKey& key) const override { return key == key_; }
  size_t PinnedChunks() const override { return 0; }
  void ForEach(absl::FunctionRef<void(const ChunkKey&)>) const override {}

 private:
  const ChunkKey key_;
};

ResidentsOptions Lru(uint64_t budget, SpaceQuotas quotas = {}) {
  return {.budget_bytes = budget, .policy = PolicyKind::kLru, .quotas = std::move(quotas)};
}

TEST(ResidentsTest, MakesRoomByThePolicyAndAccountsForReservations) {
  Residents residents(Lru(100), Pins::None());
  for (uint8_t i = 1; i <= 4; ++i) residents.Insert(0, Facts(i, 20), absl::InfiniteFuture());
  residents.Access(0, ResidentKey(1));
  EXPECT_THAT(KeysOf(residents.Reserve(0, 20, {}, kStart)), IsEmpty());
  EXPECT_THAT(KeysOf(residents.Reserve(0, 30, {}, kStart)), ElementsAre(ResidentKey(2), ResidentKey(3)));
  residents.Release(0, 20);
  residents.Insert(0, Facts(5, 20), absl::InfiniteFuture());
  residents.Release(0, 30);
  EXPECT_EQ(residents.bytes(), 60u);
  EXPECT_EQ(residents.size(), 3u);
  EXPECT_TRUE(residents.Erase(0, ResidentKey(5)));
  EXPECT_FALSE(residents.Erase(0, ResidentKey(5)));
  EXPECT_EQ(residents.bytes(), 40u);
}

TEST(ResidentsTest, RefusesWithoutLettingGoOfAnythingWhenPinsAreInTheWay) {
  const testing::FixedPins pins({ResidentKey(1), ResidentKey(2)});
  Residents residents(Lru(100), pins);
  for (uint8_t i = 1; i <= 4; ++i) residents.Insert(0, Facts(i, 25), absl::InfiniteFuture());
  const absl::Status refused = residents.Reserve(0, 51, {}, kStart).status;
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(residents.size(), 4u);
  EXPECT_TRUE(absl::IsResourceExhausted(residents.Reserve(0, 26, ResidentKey(3), kStart).status))
      << "what is spared is in the way as well";
  EXPECT_THAT(KeysOf(residents.Reserve(0, 50, {}, kStart)), UnorderedElementsAre(ResidentKey(3), ResidentKey(4)));
  EXPECT_TRUE(absl::IsResourceExhausted(residents.Reserve(0, 101, {}, kStart).status));
}

TEST(ResidentsTest, APinThatComesMeanwhileRefusesAndTheBudgetHolds) {
  const LatePins pins(ResidentKey(2));
  Residents residents(Lru(100), pins);
  for (uint8_t i = 1; i <= 4; ++i) residents.Insert(0, Facts(i, 25), absl::InfiniteFuture());
  const Residents::Reserved reserved = residents.Reserve(0, 100, {}, kStart);
  EXPECT_TRUE(absl::IsResourceExhausted(reserved.status)) << reserved.status;
  EXPECT_THAT(KeysOf(reserved.gone), UnorderedElementsAre(ResidentKey(1), ResidentKey(3), ResidentKey(4)))
      << "to be dropped all the same";
  EXPECT_EQ(residents.bytes(), 25u);
  EXPECT_THAT(KeysOf(residents.Reserve(0, 75, {}, kStart)), IsEmpty()) << "nothing was set aside";
}

TEST(ResidentsTest, ExpiredChunksGoFirstAndKnowIt) {
  Residents residents(Lru(100), Pins::None());
  residents.Insert(0, Facts(1, 50), absl::InfiniteFuture());
  residents.Insert(0, Facts(2, 30), kStart + absl::Seconds(1));
  residents.Insert(0, Facts(3, 20), kStart + absl::Seconds(5));
  EXPECT_TRUE(residents.TakeExpired(kStart).empty());
  const Residents::Reserved reserved = residents.Reserve(0, 30, {}, kStart + absl::Seconds(1));
  ASSERT_TRUE(reserved.status.ok());
  ASSERT_EQ(reserved.gone.size(), 1u);
  EXPECT_EQ(reserved.gone.front().key, ResidentKey(2));
  EXPECT_EQ(reserved.gone.front().bytes, 30u);
  EXPECT_TRUE(reserved.gone.front().expired);
  residents.SetExpiry(0, ResidentKey(3), absl::InfiniteFuture());
  EXPECT_TRUE(residents.TakeExpired(kStart + absl::Hours(1)).empty());
  residents.SetExpiry(0, ResidentKey(3), kStart);
  EXPECT_THAT(KeysOf(residents.TakeExpired(kStart)), ElementsAre(ResidentKey(3)));
  EXPECT_EQ(residents.bytes(), 50u);
}

TEST(ResidentsTest, QuotaBindsItsSpaceAndNoOther) {
  Residents residents(Lru(100, {.each = 0.3, .named = {{Space(9), 1.0}, {Space(8), 0.0}}}), Pins::None());
  const Residents::Share a = residents.ShareOf(Space(1));
  const Residents::Share free = residents.ShareOf(Space(9));
  EXPECT_EQ(free, 0u) << "a space that may hold all of it shares the common policy";
  EXPECT_NE(a, residents.ShareOf(Space(2)));
  EXPECT_EQ(a, residents.ShareOf(Space(1)));
  residents.Insert(a, Facts(1, 20), absl::InfiniteFuture());
  residents.Insert(free, Facts(2, 40), absl::InfiniteFuture());
  EXPECT_THAT(KeysOf(residents.Reserve(a, 20, {}, kStart)), ElementsAre(ResidentKey(1)))
      << "there is room, but not for it";
  residents.Release(a, 20);
  EXPECT_TRUE(absl::IsResourceExhausted(residents.Reserve(a, 31, {}, kStart).status));
  const absl::Status none = residents.Reserve(residents.ShareOf(Space(8)), 1, {}, kStart).status;
  EXPECT_THAT(MessageOf(none), ::testing::HasSubstr("quota"));
}

TEST(ResidentsTest, FullTierTakesFromWhoHoldsTheGreatestPartOfWhatItMay) {
  Residents residents(Lru(100, {.each = 0.5}), Pins::None());
  const Residents::Share a = residents.ShareOf(Space(1));
  const Residents::Share b = residents.ShareOf(Space(2));
  const Residents::Share c = residents.ShareOf(Space(3));
  for (uint8_t i = 1; i <= 5; ++i) residents.Insert(a, Facts(i, 10), absl::InfiniteFuture());
  for (uint8_t i = 11; i <= 14; ++i) residents.Insert(b, Facts(i, 10), absl::InfiniteFuture());
  EXPECT_THAT(KeysOf(residents.Reserve(c, 40, {}, kStart)),
              ElementsAre(ResidentKey(1), ResidentKey(2), ResidentKey(11)));
}

TEST(ResidentsTest, SurplusCountsUntilItIsErasedAndGoesFirst) {
  const testing::FixedPins pins({ResidentKey(1)});
  Residents residents(Lru(100), pins);
  for (uint8_t i = 1; i <= 5; ++i) residents.Insert(0, Facts(i, 20), absl::InfiniteFuture());
  EXPECT_THAT(residents.Surplus(30), ElementsAre(ResidentKey(2), ResidentKey(3))) << "a pinned chunk stays";
  EXPECT_THAT(residents.Surplus(30), IsEmpty());
  EXPECT_EQ(residents.bytes(), 100u);
  EXPECT_TRUE(residents.Erase(0, ResidentKey(2)));
  EXPECT_EQ(residents.bytes(), 80u);
  EXPECT_THAT(KeysOf(residents.Reserve(0, 40, {}, kStart)), ElementsAre(ResidentKey(3)));
  EXPECT_EQ(residents.size(), 3u);
}

TEST(ResidentsTest, SpacesBeyondTheLimitShareTheCommonPolicy) {
  Residents residents(Lru(1000, {.each = 0.1}), Pins::None());
  const auto share_of = [&](uint32_t n) {
    SpaceId space;
    space.bytes[0] = static_cast<uint8_t>(n);
    space.bytes[1] = static_cast<uint8_t>(n >> 8);
    space.bytes[31] = 1;
    return residents.ShareOf(space);
  };
  for (uint32_t n = 1; n < Residents::kMaxShares; ++n) ASSERT_EQ(share_of(n), n);
  EXPECT_EQ(share_of(5000), 0u);
  EXPECT_EQ(share_of(1), 1u);
}

TEST(ResidentsTest, AQuotaThatComesTakesItsSpaceOutOfTheCommonShareInItsOrder) {
  const testing::FixedPins pins({ResidentKey(2)});
  Residents residents(Lru(100), pins);
  for (uint8_t i = 1; i <= 5; ++i) residents.Insert(0, Facts(i, 20), kStart + absl::Hours(i));
  residents.Access(0, ResidentKey(1));
  residents.SetQuotas({.named = {{Space(1), 0.4}}});
  const Residents::Share share = residents.ShareOf(Space(1));
  ASSERT_NE(share, 0u);
  EXPECT_EQ(residents.ShareOf(Space(2)), 0u);
  // All but chunk 5 are of the space.
  for (const ChunkKey& key : residents.ColdestFirst(0)) {
    if (key != ResidentKey(5)) {
      EXPECT_TRUE(residents.Move(0, share, Facts(key.bytes[0], 20)));
    }
  }
  EXPECT_FALSE(residents.Move(0, share, Facts(1, 20))) << "it is there already";
  EXPECT_EQ(residents.bytes(), 100u) << "nothing goes before Trim";
  EXPECT_EQ(residents.FullestShare(), 2);
  EXPECT_EQ(residents.OverBytes(), 40u);
  EXPECT_THAT(KeysOf(residents.Trim(1)), ElementsAre(ResidentKey(3)));
  EXPECT_THAT(KeysOf(residents.Trim(100)), ElementsAre(ResidentKey(4))) << "chunk 1 was used, chunk 2 is pinned";
  EXPECT_THAT(residents.Trim(100), IsEmpty());
  EXPECT_EQ(residents.OverBytes(), 0u);
  EXPECT_THAT(KeysOf(residents.TakeExpired(kStart + absl::Hours(1))), ElementsAre(ResidentKey(1)))
      << "expiry moved with it";
  residents.SetQuotas({});
  EXPECT_EQ(residents.ShareOf(Space(1)), 0u);
  EXPECT_TRUE(residents.Move(share, 0, Facts(2, 20)));
  EXPECT_EQ(residents.FullestShare(), 0);
}

// Whatever order things happen in: what is accounted is what is held, and after Trim no share is over its limit.
TEST(ResidentsTest, AccountingHoldsWhileQuotasChangeUnderLoad) {
  constexpr uint64_t kBudget = 1000;
  struct Held {
    uint8_t space = 0;
    Residents::Share share = 0;
    uint64_t bytes = 0;
  };
  for (const PolicyKind kind : kAllPolicies) {
    uint64_t random = 7;
    const auto draw = [&](uint64_t below) { return (random = Mix64(random + 1)) % below; };
    Residents residents({.budget_bytes = kBudget, .policy = kind}, Pins::None());
    std::map<ChunkKey, Held> held;
    const auto drop = [&](const std::vector<Residents::Gone>& gone) {
      for (const Residents::Gone& chunk : gone) {
        ASSERT_EQ(held.at(chunk.key).bytes, chunk.bytes);
        held.erase(chunk.key);
      }
    };
    uint8_t next = 0;
    for (int step = 0; step < 3000; ++step) {
      const auto space = static_cast<uint8_t>(1 + draw(4));
      const uint64_t what = draw(10);
      if (what < 6) {
        const ChunkKey key = ResidentKey(next = static_cast<uint8_t>(next % 200 + 1));
        if (const auto old = held.find(key); old != held.end()) {
          ASSERT_TRUE(residents.Erase(old->second.share, key));
          held.erase(old);
        }
        const uint64_t bytes = 1 + draw(60);
        const Residents::Share share = residents.ShareOf(Space(space));
        const Residents::Reserved room = residents.Reserve(share, bytes, key, kStart);
        drop(room.gone);
        if (!room.status.ok()) continue;
        residents.Release(share, bytes);
        residents.Insert(share, Facts(next, bytes), absl::InfiniteFuture());
        held[key] = {.space = space, .share = share, .bytes = bytes};
      } else if (what < 8 && !held.empty()) {
        const auto it = std::next(held.begin(), static_cast<std::ptrdiff_t>(draw(held.size())));
        residents.Access(it->second.share, it->first);
      } else if (what == 8) {
        residents.Surplus(draw(100));
      } else {
        SpaceQuotas quotas;
        if (draw(2) == 0) quotas.each = static_cast<double>(draw(11)) / 10;
        if (draw(2) == 0) quotas.named[Space(space)] = static_cast<double>(draw(11)) / 10;
        residents.SetQuotas(quotas);
        for (auto& [key, chunk] : held) {
          const Residents::Share share = residents.ShareOf(Space(chunk.space));
          if (share == chunk.share) continue;
          ASSERT_TRUE(residents.Move(chunk.share, share, Facts(key.bytes[0], chunk.bytes)));
          chunk.share = share;
        }
        while (true) {
          const std::vector<Residents::Gone> gone = residents.Trim(3);
          ASSERT_LE(gone.size(), 3u);
          if (gone.empty()) break;
          drop(gone);
        }
        ASSERT_EQ(residents.OverBytes(), 0u);
        std::map<uint8_t, uint64_t> bytes_of;
        for (const auto& [key, chunk] : held) bytes_of[chunk.space] += chunk.bytes;
        for (const auto& [id, bytes] : bytes_of) {
          ASSERT_LE(static_cast<double>(bytes), quotas.Of(Space(id)) * kBudget) << PolicyName(kind);
        }
      }
      uint64_t sum = 0;
      for (const auto& [key, chunk] : held) sum += chunk.bytes;
      ASSERT_EQ(residents.bytes(), sum) << PolicyName(kind) << ", step " << step;
      ASSERT_EQ(residents.size(), held.size());
    }
  }
}

}  // namespace
}  // namespace kdn
