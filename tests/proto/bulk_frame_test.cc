#include "proto/wire/bulk_frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "kdn/v1/bulk.pb.h"

namespace kdn::wire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using HeaderBytes = std::array<uint8_t, kBulkHeaderBytes>;

TEST(BulkFrameTest, HeadersComeBackAsTheyWere) {
  for (const BulkType type : {BulkType::kHello, BulkType::kWelcome, BulkType::kCall, BulkType::kChunk,
                              BulkType::kRelease, BulkType::kSlabs, BulkType::kAnswer}) {
    for (const uint32_t message_bytes : {0u, 1u, 0x00010203u, kMaxBulkMessageBytes}) {
      for (const uint64_t data_bytes : {uint64_t{0}, uint64_t{255}, uint64_t{0x0102030405060708}, UINT64_MAX}) {
        const absl::StatusOr<BulkHeader> parsed =
            ParseBulkHeader(EncodeBulkHeader({.type = type, .message_bytes = message_bytes, .data_bytes = data_bytes}));
        ASSERT_TRUE(parsed.ok()) << parsed.status();
        EXPECT_EQ(parsed->type, type);
        EXPECT_EQ(parsed->message_bytes, message_bytes);
        EXPECT_EQ(parsed->data_bytes, data_bytes);
      }
    }
  }
}

// What peers of other machines and versions rely on.
TEST(BulkFrameTest, TheLayoutIsFixed) {
  EXPECT_THAT(EncodeBulkHeader({.type = BulkType::kSlabs, .message_bytes = 0x030201, .data_bytes = 0x1f1e1d1c1b1a1918}),
              ElementsAre(6, 0, 0, 0, 0x01, 0x02, 0x03, 0, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f));
  EXPECT_EQ(kBulkPreface, "KDNBULK1");
  // Not even its first byte is that of HTTP/2's "PRI * HTTP/2.0".
  EXPECT_NE(kBulkPreface[0], 'P');
}

TEST(BulkFrameTest, UnknownTypesAreRefusedByNumber) {
  for (int type = 0; type < 256; ++type) {
    HeaderBytes bytes{};
    bytes[0] = static_cast<uint8_t>(type);
    const absl::StatusOr<BulkHeader> parsed = ParseBulkHeader(bytes);
    if (type >= 1 && type <= 7) {
      EXPECT_TRUE(parsed.ok()) << type;
      continue;
    }
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << type;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(std::to_string(type)));
  }
}

TEST(BulkFrameTest, OversizedMessagesAreRefusedBySize) {
  for (const uint32_t size : {kMaxBulkMessageBytes + 1, UINT32_MAX}) {
    const absl::Status status =
        ParseBulkHeader(EncodeBulkHeader({.type = BulkType::kCall, .message_bytes = size, .data_bytes = 0})).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(size)));
  }
}

TEST(BulkFrameTest, AFrameIsItsHeaderAndItsMessage) {
  v1::BulkWelcome welcome;
  welcome.set_version(kBulkVersion);
  welcome.set_machine("machine");
  const std::string frame = EncodeBulkFrame(BulkType::kWelcome, welcome, 77);
  ASSERT_GE(frame.size(), kBulkHeaderBytes);
  HeaderBytes bytes{};
  std::copy_n(frame.begin(), kBulkHeaderBytes, bytes.begin());
  const BulkHeader header = ParseBulkHeader(bytes).value();
  EXPECT_EQ(header.type, BulkType::kWelcome);
  EXPECT_EQ(header.message_bytes, frame.size() - kBulkHeaderBytes);
  EXPECT_EQ(header.data_bytes, 77u);
  v1::BulkWelcome parsed;
  ASSERT_TRUE(parsed.ParseFromString(frame.substr(kBulkHeaderBytes)));
  EXPECT_EQ(parsed.machine(), "machine");
  EXPECT_EQ(EncodeBulkFrame(BulkType::kRelease, v1::BulkRelease()).size(), kBulkHeaderBytes) << "an empty message";
}

}  // namespace
}  // namespace kdn::wire
