#include "storage/format/digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <unordered_set>
#include <vector>

namespace kdn {
namespace {

using ::testing::HasSubstr;

SpaceId Named(std::string_view s) {
  SpaceId id;
  id.bytes = Sha256({AsBytes(s)});
  return id;
}

TEST(DigestTest, Sha256IsThePublishedOne) {
  EXPECT_EQ(Named("").ToHex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Named("abc").ToHex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DigestTest, PartsHashLikeTheirConcatenation) {
  EXPECT_EQ(Sha256({AsBytes("a"), AsBytes(""), AsBytes("bc")}), Sha256({AsBytes("abc")}));
}

TEST(DigestTest, ThreadsDoNotDisturbOneAnother) {
  std::vector<std::vector<SpaceId>> ids(4);
  std::vector<std::thread> threads;
  for (auto& mine : ids) {
    threads.emplace_back([&mine] {
      for (int i = 0; i < 200; ++i) mine.push_back(Named(std::to_string(i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : ids) EXPECT_EQ(mine, ids[0]);
  EXPECT_EQ(ids[0][7], Named("7"));
}

TEST(DigestTest, HexAndBytesRoundTrip) {
  const SpaceId id = Named("x");
  EXPECT_EQ(SpaceId::FromHex(id.ToHex()).value(), id);
  EXPECT_EQ(SpaceId::FromBytes(id.span()).value(), id);
  std::string upper = id.ToHex();
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(SpaceId::FromHex(upper).value(), id);
  EXPECT_EQ(id.ToShortHex(), id.ToHex().substr(0, 12));
}

TEST(DigestTest, ATruncatedOrMistypedNameIsRefused) {
  const std::string hex = Named("x").ToHex();
  for (const std::string& bad :
       {std::string(), hex.substr(1), hex + "0", "g" + hex.substr(1), hex.substr(0, 63) + " "}) {
    EXPECT_EQ(SpaceId::FromHex(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  const std::vector<uint8_t> bytes(33);
  EXPECT_EQ(SpaceId::FromBytes(bytes).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SpaceId::FromBytes(ByteSpan(bytes).first(31)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(SpaceId::FromBytes({}).status().message()), HasSubstr("32 bytes, not 0"));
}

TEST(DigestTest, OnlyTheDefaultNamesNothing) {
  EXPECT_TRUE(SpaceId().IsZero());
  EXPECT_FALSE(Named("").IsZero());
}

}  // namespace
}  // namespace kdn
