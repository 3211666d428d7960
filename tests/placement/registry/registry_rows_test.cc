#include "placement/registry/registry_rows.h"

#include <functional>
#include <string>

#include "gtest/gtest.h"

namespace kdn {
namespace {

// Every truncation, every flipped bit, and one byte more.
void ExpectEveryDamageFound(const std::string& row, const std::function<absl::Status(std::string_view)>& decode) {
  EXPECT_EQ(decode(row), absl::OkStatus());
  for (size_t size = 0; size < row.size(); ++size) {
    EXPECT_EQ(decode(row.substr(0, size)).code(), absl::StatusCode::kDataLoss) << size;
  }
  for (size_t bit = 0; bit < row.size() * 8; ++bit) {
    std::string damaged = row;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(decode(damaged).code(), absl::StatusCode::kDataLoss) << bit;
  }
  EXPECT_EQ(decode(row + "x").code(), absl::StatusCode::kDataLoss);
}

TEST(RegistryRowsTest, TotalsSurviveAndDamageIsFound) {
  const std::string row = EncodeTotals({.revision = 1'000'000, .records = 12, .leases = 3});
  const RegistryTotals totals = *DecodeTotals(row);
  EXPECT_EQ(totals.revision, 1'000'000);
  EXPECT_EQ(totals.records, 12U);
  EXPECT_EQ(totals.leases, 3U);
  ExpectEveryDamageFound(row, [](std::string_view r) { return DecodeTotals(r).status(); });
}

TEST(RegistryRowsTest, LeasesSurviveAndDamageIsFound) {
  const LeaseTerm lease{.id = 0x1234'5678'9abc'def0, .seconds = 3600};
  const std::string row = EncodeLease(lease);
  const LeaseTerm decoded = *DecodeLease(LeaseRowKey(lease.id), row);
  EXPECT_EQ(decoded.id, lease.id);
  EXPECT_EQ(decoded.seconds, lease.seconds);
  ExpectEveryDamageFound(row, [&](std::string_view r) { return DecodeLease(LeaseRowKey(lease.id), r).status(); });
  EXPECT_EQ(DecodeLease(LeaseRowKey(lease.id + 1), row).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeLease("l/short", row).status().code(), absl::StatusCode::kDataLoss);
}

TEST(RegistryRowsTest, RecordsSurviveAndDamageIsFound) {
  const Record record{.key = "nodes/a", .value = std::string("\0value", 6), .revision = 77, .lease = 5};
  const std::string row = EncodeRecord(record);
  const Record decoded = *DecodeRecord(RecordRowKey(record.key), row);
  EXPECT_EQ(decoded.key, record.key);
  EXPECT_EQ(decoded.value, record.value);
  EXPECT_EQ(decoded.revision, 77);
  EXPECT_EQ(decoded.lease, 5);
  ExpectEveryDamageFound(row, [&](std::string_view r) { return DecodeRecord(RecordRowKey("nodes/a"), r).status(); });
  EXPECT_EQ(DecodeRecord(RecordRowKey("nodes/b"), row).status().code(), absl::StatusCode::kDataLoss)
      << "a row that stands under another's key";
}

// As docs/formats.md has them.
TEST(RegistryRowsTest, KeysAreAsDescribed) {
  EXPECT_EQ(LeaseRowKey(0x0102030405060708), std::string("l/\x01\x02\x03\x04\x05\x06\x07\x08"));
  EXPECT_EQ(RecordRowKey("nodes/a"), "r/nodes/a");
  EXPECT_EQ(EncodeRecord({.key = "k", .value = "v", .revision = 2, .lease = 1}).substr(8),
            std::string("\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0v", 17));
}

}  // namespace
}  // namespace kdn
