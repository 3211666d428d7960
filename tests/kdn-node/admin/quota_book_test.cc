#include "kdn-node/admin/quota_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "storage/base/status.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

SpaceId SpaceFilled(uint8_t n) {
  SpaceId space;
  space.bytes.fill(n);
  return space;
}

class QuotaBookTest : public ::testing::Test {
 protected:
  std::shared_ptr<QuotaBook> Open(const SpaceQuotas& flags = {}) { return QuotaBook::Open(dir_.path(), flags).value(); }
  static absl::Status Applied(const SpaceQuotas&) { return absl::OkStatus(); }
  std::string Path() const { return dir_.path() + "/quotas"; }

  testing::TempDir dir_;
};

TEST_F(QuotaBookTest, WhatIsSetStandsAboveTheFlagsAndOutlivesARestart) {
  const SpaceQuotas flags = {.each = 0.5, .named = {{SpaceFilled(1), 0.1}}};
  auto book = Open(flags);
  EXPECT_TRUE(book->kept());
  EXPECT_EQ(book->InForce(), flags);
  EXPECT_EQ(book->Of(SpaceFilled(1)).source, QuotaSource::kFlag);
  EXPECT_FALSE(book->Of(SpaceFilled(2)).own);
  SpaceQuotas applied;
  ASSERT_TRUE(book->Set(SpaceFilled(1), 0.25,
                        [&](const SpaceQuotas& now) {
                          applied = now;
                          return absl::OkStatus();
                        })
                  .ok());
  EXPECT_EQ(applied.Of(SpaceFilled(1)), 0.25);
  EXPECT_EQ(applied.each, 0.5);
  ASSERT_TRUE(book->Set(std::nullopt, 1.0, Applied).ok());
  ASSERT_TRUE(book->Set(SpaceFilled(2), 0.0, Applied).ok());

  book = Open(flags);
  EXPECT_EQ(book->Of(SpaceFilled(1)).share, 0.25);
  EXPECT_EQ(book->Of(SpaceFilled(1)).source, QuotaSource::kRunTime);
  EXPECT_EQ(book->Default().share, 1);
  EXPECT_EQ(book->Default().source, QuotaSource::kRunTime);
  EXPECT_EQ(book->Named().size(), 2u);
  ASSERT_TRUE(book->Set(SpaceFilled(1), std::nullopt, Applied).ok());
  ASSERT_TRUE(book->Set(std::nullopt, std::nullopt, Applied).ok());
  EXPECT_EQ(book->Of(SpaceFilled(1)).share, 0.1);
  EXPECT_EQ(book->Default().share, 0.5);
  EXPECT_EQ(Open(flags)->InForce(), book->InForce());
}

TEST_F(QuotaBookTest, RefusesWhatIsNoShareAndTooManySpaces) {
  const auto book = Open();
  for (const double bad : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(book->Set(SpaceFilled(1), bad, Applied))) << bad;
  }
  EXPECT_FALSE(std::filesystem::exists(Path()));
  std::ofstream file(Path());
  file << "kdn-quotas 1\n";
  for (size_t i = 0; i < kMaxRunTimeQuotas; ++i) {
    SpaceId space = SpaceFilled(3);
    space.bytes[0] = static_cast<uint8_t>(i);
    space.bytes[1] = static_cast<uint8_t>(i >> 8);
    file << space.ToHex() << " 0.5\n";
  }
  file.close();
  const auto full = Open();
  EXPECT_TRUE(absl::IsResourceExhausted(full->Set(SpaceFilled(9), 0.5, Applied)));
  EXPECT_EQ(full->Of(SpaceFilled(9)).source, QuotaSource::kNone) << "nothing changed";
  EXPECT_TRUE(full->Set(std::nullopt, 0.5, Applied).ok());
}

TEST_F(QuotaBookTest, AFileThatMakesNoSenseIsNamedWithTheMend) {
  const std::string hex = SpaceFilled(1).ToHex();
  for (const std::string& bad : {std::string("kdn-quotas 2\n"), std::string("kdn-quotas 1\ndefault 2\n"),
                                 std::string("kdn-quotas 1\ndefault x\n"), std::string("kdn-quotas 1\nabc 0.1\n"),
                                 "kdn-quotas 1\n" + hex + " 0.1 more\n", "kdn-quotas 1\n" + hex + "\n",
                                 "kdn-quotas 1\n" + hex + " 0.1\n" + hex + " 0.2\n",
                                 std::string("kdn-quotas 1\ndefault 0.1\ndefault 0.1\n"), std::string()}) {
    std::ofstream(Path(), std::ios::trunc) << bad;
    const absl::Status status = QuotaBook::Open(dir_.path(), {}).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << bad << status;
    EXPECT_THAT(MessageOf(status), HasSubstr(Path()));
  }
}

TEST_F(QuotaBookTest, WhatCannotBeWrittenDownIsNotInForce) {
  const auto book = QuotaBook::Open(dir_.path() + "/gone", {}).value();
  bool applied = false;
  const absl::Status status = book->Set(SpaceFilled(1), 0.5, [&](const SpaceQuotas&) {
    applied = true;
    return absl::OkStatus();
  });
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_FALSE(applied);
  EXPECT_EQ(book->Of(SpaceFilled(1)).source, QuotaSource::kNone);
  const auto nowhere = QuotaBook::Open("", {}).value();
  EXPECT_FALSE(nowhere->kept());
  EXPECT_TRUE(nowhere->Set(SpaceFilled(1), 0.5, Applied).ok());
}

}  // namespace
}  // namespace kdn
