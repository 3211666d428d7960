#include "placement/registry/change_rules.h"

#include <algorithm>
#include <string>
#include <vector>

#include "storage/base/status.h"

namespace kdn {
namespace {

absl::Status CheckKey(std::string_view key) {
  if (key.empty()) return InvalidArgument("registry: a key is empty; name the record");
  if (key.size() > kMaxRegistryKeyBytes) {
    return InvalidArgument("registry: a key of {} bytes ('{}…'); at most {} are allowed", key.size(), key.substr(0, 64),
                           kMaxRegistryKeyBytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckChange(const Change& change) {
  const size_t records = change.conditions.size() + change.puts.size() + change.deletes.size();
  if (records > kMaxRegistryChangeRecords) {
    return InvalidArgument("registry: a change of {} conditions, puts and deletes; at most {} are allowed, split it",
                           records, kMaxRegistryChangeRecords);
  }
  size_t bytes = 0;
  std::vector<std::string_view> written;
  for (const Change::Condition& condition : change.conditions) {
    KDN_RETURN_IF_ERROR(CheckKey(condition.key));
    if (condition.revision < 0) {
      return InvalidArgument("registry: '{}' is to have revision {}; revisions are not negative", condition.key,
                             condition.revision);
    }
    bytes += condition.key.size();
  }
  for (const Change::Put& put : change.puts) {
    KDN_RETURN_IF_ERROR(CheckKey(put.key));
    if (put.value.size() > kMaxRegistryValueBytes) {
      return InvalidArgument("registry: a value of {} bytes for '{}'; at most {} are allowed", put.value.size(),
                             put.key, kMaxRegistryValueBytes);
    }
    if (put.lease < 0)
      return InvalidArgument("registry: '{}' is put under lease {}; there is none", put.key, put.lease);
    bytes += put.key.size() + put.value.size();
    written.push_back(put.key);
  }
  for (const std::string& key : change.deletes) {
    KDN_RETURN_IF_ERROR(CheckKey(key));
    bytes += key.size();
    written.push_back(key);
  }
  if (bytes > kMaxRegistryChangeBytes) {
    return InvalidArgument("registry: a change of {} bytes of keys and values; at most {} are allowed, split it", bytes,
                           kMaxRegistryChangeBytes);
  }
  std::sort(written.begin(), written.end());
  const auto twice = std::adjacent_find(written.begin(), written.end());
  if (twice != written.end()) {
    return InvalidArgument("registry: one change writes '{}' twice; say once what becomes of it", *twice);
  }
  return absl::OkStatus();
}

absl::Status CheckPrefix(std::string_view prefix) {
  if (prefix.size() <= kMaxRegistryKeyBytes) return absl::OkStatus();
  return InvalidArgument("registry: a prefix of {} bytes; keys have at most {}", prefix.size(), kMaxRegistryKeyBytes);
}

absl::StatusOr<int64_t> LeaseSeconds(absl::Duration ttl) {
  if (ttl < absl::Seconds(1) || ttl > kMaxRegistryLeaseTtl || ttl != absl::Floor(ttl, absl::Seconds(1))) {
    return InvalidArgument("registry: a lease of {} s; give whole seconds from 1 to {}", absl::ToDoubleSeconds(ttl),
                           absl::ToInt64Seconds(kMaxRegistryLeaseTtl));
  }
  return absl::ToInt64Seconds(ttl);
}

}  // namespace kdn
