// What is particular to the embedded registry: what survives a restart, and what a damaged or foreign directory gives.
#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/process/child_process.h"
#include "placement/registry/registry.h"
#include "placement/registry/registry_rows.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"
#include "tests/placement/registry/recording_watcher.h"

namespace kdn {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr absl::Time kEver = absl::InfiniteFuture();

Change PutOf(const std::string& key, const std::string& value, LeaseId lease = 0) {
  Change change;
  change.puts.push_back({.key = key, .value = value, .lease = lease});
  return change;
}

class EmbeddedRegistryTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Registry>> Open() { return OpenEmbeddedRegistry({.path = path_}, clock_); }
  std::unique_ptr<Registry> MustOpen() {
    absl::StatusOr<std::unique_ptr<Registry>> registry = Open();
    EXPECT_TRUE(registry.ok()) << registry.status();
    return *std::move(registry);
  }
  void Fill() {
    const std::unique_ptr<Registry> registry = MustOpen();
    lease_ = *registry->Grant(absl::Seconds(10), kEver);
    ASSERT_TRUE(registry->Commit(PutOf("nodes/a", "alpha", lease_), kEver).ok());
    ASSERT_TRUE(registry->Commit(PutOf("topology", std::string(300, 't')), kEver).ok());
  }
  // Changes the database as somebody else would.
  void Meddle(const std::function<void(rocksdb::DB&)>& how) {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* opened = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, path_, &opened).ok());
    const std::unique_ptr<rocksdb::DB> db(opened);
    how(*db);
    ASSERT_TRUE(db->Close().ok());
  }
  static void FlipAt(const std::filesystem::path& path, std::streamoff at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const int byte = file.get();
    ASSERT_GE(byte, 0);
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.flush());
  }
  void ExpectDamage(std::string_view what) {
    const absl::Status status = Open().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(MessageOf(status), HasSubstr(path_));
    EXPECT_THAT(MessageOf(status), HasSubstr(std::string(what)));
  }
  std::vector<std::filesystem::path> Files(const std::string& extension) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      if (entry.path().extension() == extension && entry.file_size() > 0) files.push_back(entry.path());
    }
    return files;
  }

  TemporaryDirectory directory_{"kdn-registry-"};
  const std::string path_ = (directory_.path() / "deep" / "registry").string();
  ManualSteadyClock clock_;
  LeaseId lease_ = 0;
};

TEST_F(EmbeddedRegistryTest, EverythingIsThereAfterARestart) {
  Revision last = 0;
  LeaseId lease = 0;
  {
    const std::unique_ptr<Registry> registry = MustOpen();
    EXPECT_THAT(registry->Describe(), HasSubstr(path_));
    lease = *registry->Grant(absl::Seconds(10), kEver);
    ASSERT_TRUE(registry->Commit(PutOf("gone", "1"), kEver).ok());
    Change change = PutOf("nodes/a", std::string("\0\xff", 2), lease);
    change.deletes.push_back("gone");
    last = *registry->Commit(change, kEver);
  }
  const std::unique_ptr<Registry> registry = MustOpen();
  const Snapshot all = *registry->Read("", kEver);
  EXPECT_EQ(all.revision, last);
  ASSERT_THAT(all.records, SizeIs(1));
  EXPECT_EQ(all.records[0].key, "nodes/a");
  EXPECT_EQ(all.records[0].value, std::string("\0\xff", 2));
  EXPECT_EQ(all.records[0].revision, last);
  EXPECT_EQ(all.records[0].lease, lease);
  EXPECT_EQ(*registry->Commit(PutOf("b", "1"), kEver), last + 1) << "revisions go on";

  RecordingWatcher watcher;
  const auto watch = registry->Watch("", watcher);
  ASSERT_TRUE(watcher.WaitForSnapshot());
  EXPECT_EQ(watcher.told().snapshots[0].revision, last + 1);
}

TEST_F(EmbeddedRegistryTest, LeasesHaveTheirWholeTimeAgainAfterARestart) {
  Fill();
  clock_.Advance(absl::Hours(5));  // the daemon was away
  const std::unique_ptr<Registry> registry = MustOpen();
  clock_.Advance(absl::Seconds(9));
  EXPECT_NE(registry->Read("", kEver)->Find("nodes/a"), nullptr);
  EXPECT_EQ(*registry->KeepAlive(lease_, kEver), absl::Seconds(10));
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(registry->Read("", kEver)->Find("nodes/a"), nullptr);
}

TEST_F(EmbeddedRegistryTest, ALeaseThatEndedStaysEnded) {
  Fill();
  {
    const std::unique_ptr<Registry> registry = MustOpen();
    clock_.Advance(absl::Seconds(10));
    EXPECT_EQ(registry->Read("nodes/", kEver)->records.size(), 0U);
  }
  const std::unique_ptr<Registry> registry = MustOpen();
  EXPECT_EQ(registry->Read("", kEver)->Find("nodes/a"), nullptr);
  EXPECT_EQ(registry->KeepAlive(lease_, kEver).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(EmbeddedRegistryTest, TwoCannotHaveOneDirectory) {
  const std::unique_ptr<Registry> first = MustOpen();
  const absl::Status second = Open().status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition) << second;
  EXPECT_THAT(MessageOf(second), HasSubstr(path_));
  EXPECT_TRUE(first->Commit(PutOf("a", "1"), kEver).ok()) << "and the first is none the worse";
}

TEST_F(EmbeddedRegistryTest, RefusesAPathThatIsNoDirectory) {
  EXPECT_EQ(OpenEmbeddedRegistry({.path = ""}).status().code(), absl::StatusCode::kInvalidArgument);
  const std::string file = (directory_.path() / "file").string();
  std::ofstream(file) << "not a directory";
  for (const std::string& path : {file, file + "/below"}) {
    const absl::Status status = OpenEmbeddedRegistry({.path = path}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(MessageOf(status), HasSubstr(path));
  }
}

TEST_F(EmbeddedRegistryTest, RefusesSomebodyElsesDatabaseAndLeavesItAlone) {
  std::filesystem::create_directories(path_);
  Meddle([](rocksdb::DB& db) { ASSERT_TRUE(db.Put({}, "theirs", "1").ok()); });
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
  Meddle([](rocksdb::DB& db) {
    std::string value;
    EXPECT_TRUE(db.Get({}, "theirs", &value).ok());
    EXPECT_TRUE(db.Get({}, std::string(kRegistryFormatRow), &value).IsNotFound());
  });
}

TEST_F(EmbeddedRegistryTest, RefusesADatabaseWithColumnFamilies) {
  std::filesystem::create_directories(path_);
  Meddle([](rocksdb::DB& db) {
    rocksdb::ColumnFamilyHandle* family = nullptr;
    ASSERT_TRUE(db.CreateColumnFamily({}, "manifests", &family).ok());
    ASSERT_TRUE(db.DestroyColumnFamilyHandle(family).ok());
  });
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("manifests"));
}

TEST_F(EmbeddedRegistryTest, RefusesAnotherFormat) {
  Fill();
  Meddle([](rocksdb::DB& db) { ASSERT_TRUE(db.Put({}, std::string(kRegistryFormatRow), "2").ok()); });
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("'2'"));
}

TEST_F(EmbeddedRegistryTest, NoticesARowThatWasChanged) {
  Fill();
  Meddle([](rocksdb::DB& db) {
    std::string value;
    ASSERT_TRUE(db.Get({}, RecordRowKey("nodes/a"), &value).ok());
    value.back() = 'X';
    ASSERT_TRUE(db.Put({}, RecordRowKey("nodes/a"), value).ok());
  });
  ExpectDamage("nodes/a");
}

TEST_F(EmbeddedRegistryTest, NoticesARowUnderAnothersKey) {
  Fill();
  Meddle([](rocksdb::DB& db) {
    std::string value;
    ASSERT_TRUE(db.Get({}, RecordRowKey("nodes/a"), &value).ok());
    ASSERT_TRUE(db.Put({}, RecordRowKey("nodes/b"), value).ok());
  });
  ExpectDamage("nodes/b");
}

TEST_F(EmbeddedRegistryTest, NoticesARowThatIsMissing) {
  Fill();
  Meddle([](rocksdb::DB& db) { ASSERT_TRUE(db.Delete({}, RecordRowKey("topology")).ok()); });
  ExpectDamage("1 records");
}

TEST_F(EmbeddedRegistryTest, NoticesALeaseThatIsMissing) {
  Fill();
  Meddle([this](rocksdb::DB& db) { ASSERT_TRUE(db.Delete({}, LeaseRowKey(lease_)).ok()); });
  ExpectDamage(std::to_string(lease_));
}

TEST_F(EmbeddedRegistryTest, NoticesThatTheTotalsAreMissing) {
  Fill();
  Meddle([](rocksdb::DB& db) { ASSERT_TRUE(db.Delete({}, std::string(kRegistryTotalsRow)).ok()); });
  ExpectDamage("totals");
}

TEST_F(EmbeddedRegistryTest, NoticesADamagedLog) {
  Fill();
  const std::vector<std::filesystem::path> logs = Files(".log");
  ASSERT_THAT(logs, SizeIs(1));
  FlipAt(logs[0], 40);  // in the first record, of several
  ExpectDamage("damaged");
}

TEST_F(EmbeddedRegistryTest, NoticesADamagedTable) {
  Fill();
  Meddle([](rocksdb::DB& db) { ASSERT_TRUE(db.Flush({}).ok()); });
  for (const std::filesystem::path& table : Files(".sst")) {
    FlipAt(table, 30);
  }
  ExpectDamage("damaged");
}

TEST_F(EmbeddedRegistryTest, ATornLastWriteIsAsIfItHadNotBeen) {
  Revision kept = 0;
  {
    const std::unique_ptr<Registry> registry = MustOpen();
    kept = *registry->Commit(PutOf("a", "1"), kEver);
  }
  std::filesystem::path written;
  {
    const std::unique_ptr<Registry> registry = MustOpen();
    ASSERT_TRUE(registry->Commit(PutOf("a", "2"), kEver).ok());
    const std::vector<std::filesystem::path> logs = Files(".log");
    ASSERT_THAT(logs, SizeIs(1));
    written = logs[0];
  }
  std::filesystem::resize_file(written, std::filesystem::file_size(written) - 5);
  const std::unique_ptr<Registry> registry = MustOpen();
  const Snapshot all = *registry->Read("", kEver);
  EXPECT_EQ(all.revision, kept);
  EXPECT_EQ(all.Find("a")->value, "1");
}

}  // namespace
}  // namespace kdn
