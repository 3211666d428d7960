// Database: an open RocksDB database with the column families of KDN's disk tier (docs/formats.md, "Disk tier").
//
// For ChunkDb alone, which keeps RocksDB's headers out of everybody else's.
//
// Thread-safety: as RocksDB: all of it may be used from any thread.
#ifndef KDN_STORAGE_TIER_DATABASE_H_
#define KDN_STORAGE_TIER_DATABASE_H_

#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn {

class Database {
 public:
  enum class Mode { kReadWrite, kReadOnly };

  // Opens or creates (kReadWrite) the database in the directory `path`, and checks that its format is ours. Errors as
  // ChunkDb::Open.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path, rocksdb::Env* env, Mode mode);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  rocksdb::DB& rocks() const { return *db_; }
  rocksdb::ColumnFamilyHandle* manifests() const { return families_[1]; }
  rocksdb::ColumnFamilyHandle* index() const { return families_[2]; }

 private:
  Database(std::string path, std::unique_ptr<rocksdb::DB> db, std::vector<rocksdb::ColumnFamilyHandle*> families);
  absl::Status CheckFormat(Mode mode);

  const std::string path_;
  const std::unique_ptr<rocksdb::DB> db_;
  const std::vector<rocksdb::ColumnFamilyHandle*> families_;
};

// The status of a failed opening: FAILED_PRECONDITION or UNAVAILABLE, with path and mend.
absl::Status OpenError(const std::string& path, const rocksdb::Status& status);

}  // namespace kdn

#endif  // KDN_STORAGE_TIER_DATABASE_H_
