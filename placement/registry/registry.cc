#include "placement/registry/registry.h"

#include <algorithm>

namespace kdn {

const Record* Snapshot::Find(std::string_view key) const {
  const auto it = std::lower_bound(records.begin(), records.end(), key,
                                   [](const Record& record, std::string_view k) { return record.key < k; });
  return it != records.end() && it->key == key ? &*it : nullptr;
}

Revision Snapshot::RevisionOf(std::string_view key) const {
  const Record* record = Find(key);
  return record == nullptr ? 0 : record->revision;
}

}  // namespace kdn
