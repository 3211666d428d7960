// The rows that the embedded registry keeps in RocksDB; docs/formats.md, "Embedded registry", has them byte by byte.
//
// Every value begins with the XXH3-64 of its key and of what follows, so that a row that was changed, or that stands
// under another's key, is found out.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_REGISTRY_REGISTRY_ROWS_H_
#define KDN_PLACEMENT_REGISTRY_REGISTRY_ROWS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "placement/registry/registry_state.h"

namespace kdn {

// Row keys. Those of leases and records begin with these.
inline constexpr std::string_view kRegistryFormatRow = "kdn/registry";
inline constexpr std::string_view kRegistryFormat = "1";
inline constexpr std::string_view kRegistryTotalsRow = "t";
inline constexpr std::string_view kLeaseRows = "l/";
inline constexpr std::string_view kRecordRows = "r/";

// Of the whole registry, so that rows that are missing are missed.
struct RegistryTotals {
  Revision revision = 0;
  uint64_t records = 0;
  uint64_t leases = 0;
};

std::string LeaseRowKey(LeaseId lease);
std::string RecordRowKey(std::string_view key);

// The values, under the keys that they belong to.
std::string EncodeTotals(const RegistryTotals& totals);
std::string EncodeLease(const LeaseTerm& lease);
std::string EncodeRecord(const Record& record);

// DATA_LOSS naming what is wrong.
absl::StatusOr<RegistryTotals> DecodeTotals(std::string_view value);
absl::StatusOr<LeaseTerm> DecodeLease(std::string_view row_key, std::string_view value);
absl::StatusOr<Record> DecodeRecord(std::string_view row_key, std::string_view value);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_REGISTRY_ROWS_H_
