// RocksJournal: the registry's journal in a RocksDB of its own. Every Append is one synced write.
//
//   RegistryState state;
//   KDN_ASSIGN_OR_RETURN(std::unique_ptr<RocksJournal> journal, RocksJournal::Open(path, state));
//
// Thread-safety: as Journal.
#ifndef KDN_PLACEMENT_REGISTRY_ROCKS_JOURNAL_H_
#define KDN_PLACEMENT_REGISTRY_ROCKS_JOURNAL_H_

#include <rocksdb/db.h>

#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "placement/registry/journal.h"
#include "placement/registry/registry_state.h"

namespace kdn {

class RocksJournal final : public Journal {
 public:
  // `state` becomes what is kept at `path`, which is made when absent. The errors of OpenEmbeddedRegistry. `env`: for
  // tests; outlives it; null: the system's.
  static absl::StatusOr<std::unique_ptr<RocksJournal>> Open(const std::string& path, RegistryState& state,
                                                            rocksdb::Env* env = nullptr);
  ~RocksJournal() override;

  absl::Status Append(std::span<const RegistryStep> steps, const RegistryState& after) override;

 private:
  RocksJournal(std::string path, std::unique_ptr<rocksdb::DB> db) : path_(std::move(path)), db_(std::move(db)) {}

  absl::Status CheckFormat();
  absl::Status Load(RegistryState& state);
  template <typename Visit>
  absl::Status ForEachRow(std::string_view first, Visit&& visit);

  const std::string path_;
  const std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_ROCKS_JOURNAL_H_
