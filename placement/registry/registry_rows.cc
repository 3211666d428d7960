#include "placement/registry/registry_rows.h"

#include <xxhash.h>

#include <utility>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"

namespace kdn {
namespace {

constexpr size_t kChecksumBytes = 8;

uint64_t Checksum(std::string_view row_key, std::string_view body) {
  return XXH3_64bits_withSeed(body.data(), body.size(), XXH3_64bits(row_key.data(), row_key.size()));
}

std::string Seal(std::string_view row_key, const ByteWriter& body) {
  ByteWriter out;
  out.U64(Checksum(row_key, body.written()));
  out.Bytes(AsBytes(body.written()));
  return std::move(out).Take();
}

// The body of the row, once its checksum holds.
absl::StatusOr<std::string_view> Open(std::string_view row_key, std::string_view value) {
  if (value.size() < kChecksumBytes) return DataLoss("the row '{}' has {} bytes", row_key, value.size());
  const std::string_view body = value.substr(kChecksumBytes);
  if (LoadLe<uint64_t>(AsBytes(value).data()) != Checksum(row_key, body)) {
    return DataLoss("the row '{}' does not match its checksum", row_key);
  }
  return body;
}

absl::Status CheckLength(const ByteReader& in, std::string_view row_key) {
  if (in.ok() && in.remaining() == 0) return absl::OkStatus();
  return DataLoss("the row '{}' does not have the length of its kind", row_key);
}

}  // namespace

std::string LeaseRowKey(LeaseId lease) {
  std::string key(kLeaseRows);
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>(lease >> shift & 0xff));
  return key;
}

std::string RecordRowKey(std::string_view key) { return std::string(kRecordRows).append(key); }

std::string EncodeTotals(const RegistryTotals& totals) {
  ByteWriter body;
  body.U64(static_cast<uint64_t>(totals.revision));
  body.U64(totals.records);
  body.U64(totals.leases);
  return Seal(kRegistryTotalsRow, body);
}

std::string EncodeLease(const LeaseTerm& lease) {
  ByteWriter body;
  body.U64(static_cast<uint64_t>(lease.seconds));
  return Seal(LeaseRowKey(lease.id), body);
}

std::string EncodeRecord(const Record& record) {
  ByteWriter body;
  body.U64(static_cast<uint64_t>(record.revision));
  body.U64(static_cast<uint64_t>(record.lease));
  body.Bytes(AsBytes(record.value));
  return Seal(RecordRowKey(record.key), body);
}

absl::StatusOr<RegistryTotals> DecodeTotals(std::string_view value) {
  KDN_ASSIGN_OR_RETURN(const std::string_view body, Open(kRegistryTotalsRow, value));
  ByteReader in(AsBytes(body));
  RegistryTotals totals;
  totals.revision = static_cast<Revision>(in.U64());
  totals.records = in.U64();
  totals.leases = in.U64();
  KDN_RETURN_IF_ERROR(CheckLength(in, kRegistryTotalsRow));
  if (totals.revision < 0) return DataLoss("the registry's revision is {}", totals.revision);
  return totals;
}

absl::StatusOr<LeaseTerm> DecodeLease(std::string_view row_key, std::string_view value) {
  if (row_key.size() != kLeaseRows.size() + 8) return DataLoss("the row '{}' names no lease", row_key);
  uint64_t id = 0;
  for (const uint8_t byte : AsBytes(row_key.substr(kLeaseRows.size()))) id = id << 8 | byte;
  KDN_ASSIGN_OR_RETURN(const std::string_view body, Open(row_key, value));
  ByteReader in(AsBytes(body));
  const LeaseTerm lease{.id = static_cast<LeaseId>(id), .seconds = static_cast<int64_t>(in.U64())};
  KDN_RETURN_IF_ERROR(CheckLength(in, row_key));
  return lease;
}

absl::StatusOr<Record> DecodeRecord(std::string_view row_key, std::string_view value) {
  KDN_ASSIGN_OR_RETURN(const std::string_view body, Open(row_key, value));
  ByteReader in(AsBytes(body));
  Record record{.key = std::string(row_key.substr(kRecordRows.size()))};
  record.revision = static_cast<Revision>(in.U64());
  record.lease = static_cast<LeaseId>(in.U64());
  record.value = AsStringView(in.Bytes(in.remaining()));
  KDN_RETURN_IF_ERROR(CheckLength(in, row_key));
  return record;
}

}  // namespace kdn
