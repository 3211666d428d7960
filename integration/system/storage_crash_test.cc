// What a store of three tiers owes after kill -9, a hundred times over, in one directory.
//
// A worker process (storage_crash_worker.cc) puts load on a store and logs what it does. Each round kills it at a
// random point, opens the store again, and compares what is there with what the log allows (Oracle). Rounds in which
// nothing durable may be missing, for there is ample room, or chunks move between disks but none has to go, take turns
// with rounds in which chunks are evicted. In some rounds the process is killed again while it recovers; in some, a
// byte on the disk is flipped.
//
//   KDN_CRASH_ROUNDS  how many rounds; 100
//   KDN_CRASH_SEED    repeats the random choices of a run, which prints its seed; the timing of threads stays their own
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/process/child_process.h"
#include "integration/system/storage_crash_load.h"
#include "storage/base/status.h"
#include "storage/disk/extent.h"
#include "storage/tiered_store.h"

namespace kdn {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// What each chunk may and must show after a crash, by what was begun and what was acknowledged.
//
// Operations on a chunk may overlap; only what was over before the other began comes before it.
class Oracle {
 public:
  explicit Oracle(size_t chunks) : chunks_(chunks) {}

  void Begin(const LogLine& line) {
    ++now_;
    under_way_.emplace(line.id, line);
    if (IsChange(line)) chunks_[line.chunk].changes.push_back({.line = line, .begin = now_});
  }
  void End(const LogLine& line) {
    ++now_;
    ASSERT_EQ(under_way_.erase(line.id), 1u) << line.id;
    if (!IsChange(line)) return;
    std::vector<Change>& changes = chunks_[line.chunk].changes;
    const auto it = std::find_if(changes.begin(), changes.end(), [&](const Change& c) { return c.line.id == line.id; });
    it->end = now_;
    it->line.code = line.code;
  }

  size_t under_way() const { return under_way_.size(); }
  bool StoreUnderWay() const {
    return std::any_of(under_way_.begin(), under_way_.end(),
                       [](const auto& entry) { return entry.second.operation == LogLine::Operation::kPut; });
  }

  // The process is dead: what was under way has ended without an answer.
  void Crash() {
    under_way_.clear();
    for (OfChunk& chunk : chunks_) {
      if (chunk.changes.empty()) continue;
      for (Change& change : chunk.changes) {
        chunk.history += fmt::format("  {}{}", FormatLogLine(change.line), change.ended() ? "" : "    no answer\n");
      }
      chunk.must = MustAfter(chunk);
      for (const bool exact : {false, true}) chunk.may[exact] = MayAfter(chunk, exact);
      chunk.changes.clear();
    }
  }

  // Whether the chunk can be there in this fidelity; a lossy codec makes a quantised one of an exact one.
  bool MayShow(size_t chunk, Fidelity fidelity) const { return chunks_[chunk].may[fidelity != Fidelity::kApproximate]; }
  // The least that must be there.
  std::optional<Fidelity> MustShow(size_t chunk) const { return chunks_[chunk].must; }

  // It has been found on a disk, where it stays when there is room.
  void Found(size_t chunk, Fidelity fidelity) { chunks_[chunk].must = fidelity; }
  // It is not there, and cannot come back.
  void Gone(size_t chunk) {
    chunks_[chunk].must.reset();
    chunks_[chunk].may = {};
  }
  // It may have been evicted or damaged.
  void Excuse(size_t chunk) { chunks_[chunk].must.reset(); }
  // It may have moved down, which has quantised it.
  void ExcuseQuantised(size_t chunk) {
    std::optional<Fidelity>& must = chunks_[chunk].must;
    if (must.has_value()) must = std::min(*must, Fidelity::kQuantised);
  }
  void ExcuseAll() {
    for (OfChunk& chunk : chunks_) chunk.must.reset();
  }

  void Note(size_t chunk, const std::string& what) { chunks_[chunk].history += "  " + what + "\n"; }
  // What has happened to the chunk, for people.
  const std::string& History(size_t chunk) const { return chunks_[chunk].history; }

 private:
  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
  struct Change {
    LogLine line;
    uint64_t begin = 0;
    uint64_t end = kNever;

    bool ended() const { return end != kNever; }
    bool is_put() const { return line.operation == LogLine::Operation::kPut; }
    bool deleted() const {
      return !is_put() && ended() && (line.code == absl::StatusCode::kOk || line.code == absl::StatusCode::kNotFound);
    }
  };
  struct OfChunk {
    std::array<bool, 2> may{};  // [less exact, exact]
    std::optional<Fidelity> must;
    std::vector<Change> changes;  // since the last crash
    std::string history;
  };

  static bool IsChange(const LogLine& line) {
    return line.operation == LogLine::Operation::kPut || line.operation == LogLine::Operation::kDelete;
  }

  static std::optional<Fidelity> MustAfter(const OfChunk& chunk) {
    // What was stored at `end` stands unless a delete may have come after it.
    const auto stands = [&](uint64_t begin) {
      return std::all_of(chunk.changes.begin(), chunk.changes.end(),
                         [&](const Change& other) { return other.is_put() || other.end < begin; });
    };
    std::optional<Fidelity> must;
    if (chunk.must.has_value() && stands(0)) must = chunk.must;
    for (const Change& change : chunk.changes) {
      const bool durable = change.is_put() && change.ended() && change.line.code == absl::StatusCode::kOk &&
                           change.line.ack == Ack::kDurable;
      if (durable && stands(change.begin)) must = std::max(must.value_or(change.line.fidelity), change.line.fidelity);
    }
    return must;
  }

  static bool MayAfter(const OfChunk& chunk, bool exact) {
    // What was over at `end` is gone once a delete that began later has ended.
    const auto deleted = [&](uint64_t end) {
      return std::any_of(chunk.changes.begin(), chunk.changes.end(),
                         [&](const Change& other) { return other.deleted() && other.begin > end; });
    };
    if (chunk.may[exact] && !deleted(0)) return true;
    return std::any_of(chunk.changes.begin(), chunk.changes.end(), [&](const Change& change) {
      return change.is_put() && (change.line.fidelity == Fidelity::kExact) == exact && !deleted(change.end);
    });
  }

  std::vector<OfChunk> chunks_;
  std::map<uint64_t, LogLine> under_way_;
  uint64_t now_ = 0;
};

// The oracle decides whether the store is at fault, so it is tested itself.
class OracleTest : public testing::Test {
 protected:
  uint64_t BeginPut(Ack ack, Fidelity fidelity = Fidelity::kExact) {
    return Begin({.operation = LogLine::Operation::kPut, .chunk = 0, .fidelity = fidelity, .ack = ack});
  }
  uint64_t BeginDelete() { return Begin({.operation = LogLine::Operation::kDelete, .chunk = 0}); }
  void End(uint64_t id, absl::StatusCode code = absl::StatusCode::kOk) {
    LogLine line = lines_.at(id);
    line.code = code;
    oracle_.End(line);
  }
  bool MayShow(Fidelity fidelity = Fidelity::kExact) const { return oracle_.MayShow(0, fidelity); }
  std::optional<Fidelity> Must() const { return oracle_.MustShow(0); }

  Oracle oracle_{1};

 private:
  uint64_t Begin(LogLine line) {
    line.id = lines_.size() + 1;
    lines_[line.id] = line;
    oracle_.Begin(line);
    return line.id;
  }
  std::map<uint64_t, LogLine> lines_;
};

TEST_F(OracleTest, NothingShowsThatWasNotBegun) {
  oracle_.Crash();
  EXPECT_FALSE(MayShow());
  EXPECT_EQ(Must(), std::nullopt);
}

TEST_F(OracleTest, WhatIsDurableMustShowAndWhatIsInMemoryMay) {
  End(BeginPut(Ack::kMemory));
  oracle_.Crash();
  EXPECT_TRUE(MayShow());
  EXPECT_FALSE(MayShow(Fidelity::kApproximate));
  EXPECT_EQ(Must(), std::nullopt);
  End(BeginPut(Ack::kDurable));
  oracle_.Crash();
  EXPECT_EQ(Must(), Fidelity::kExact);
  oracle_.Crash();
  EXPECT_EQ(Must(), Fidelity::kExact) << "also after the next crash";
}

TEST_F(OracleTest, UnansweredAndFailedStoresNeedNotShow) {
  BeginPut(Ack::kDurable);
  oracle_.Crash();
  EXPECT_TRUE(MayShow());
  EXPECT_EQ(Must(), std::nullopt);
  End(BeginPut(Ack::kDurable), absl::StatusCode::kResourceExhausted);
  oracle_.Crash();
  EXPECT_EQ(Must(), std::nullopt);
}

TEST_F(OracleTest, WhatWasDeletedMustNotShow) {
  End(BeginPut(Ack::kDurable));
  oracle_.Crash();
  End(BeginDelete());
  oracle_.Crash();
  EXPECT_FALSE(MayShow());
  EXPECT_EQ(Must(), std::nullopt);
}

TEST_F(OracleTest, DeleteWithoutAnAnswerLeavesBothOpen) {
  End(BeginPut(Ack::kDurable));
  oracle_.Crash();
  BeginDelete();
  oracle_.Crash();
  EXPECT_TRUE(MayShow());
  EXPECT_EQ(Must(), std::nullopt);
}

TEST_F(OracleTest, StoreThatOverlapsADeleteLeavesBothOpen) {
  const uint64_t put = BeginPut(Ack::kDurable);
  const uint64_t gone = BeginDelete();
  End(put);
  End(gone);
  oracle_.Crash();
  EXPECT_TRUE(MayShow());
  EXPECT_EQ(Must(), std::nullopt);
}

TEST_F(OracleTest, StoreAfterADeleteMustShow) {
  End(BeginPut(Ack::kDurable, Fidelity::kApproximate));
  End(BeginDelete());
  End(BeginPut(Ack::kDurable));
  oracle_.Crash();
  EXPECT_EQ(Must(), Fidelity::kExact);
  EXPECT_FALSE(MayShow(Fidelity::kApproximate));
}

TEST_F(OracleTest, TheMoreExactOfTwoDurableStoresMustShow) {
  End(BeginPut(Ack::kDurable));
  End(BeginPut(Ack::kDurable, Fidelity::kApproximate));
  oracle_.Crash();
  EXPECT_EQ(Must(), Fidelity::kExact);
}

TEST_F(OracleTest, WhatWasNotThereOnceCannotComeBack) {
  End(BeginPut(Ack::kMemory));
  oracle_.Crash();
  oracle_.Gone(0);
  oracle_.Crash();
  EXPECT_FALSE(MayShow());
}

struct Tally {
  uint64_t kills = 0;
  uint64_t kills_in_operation = 0;
  uint64_t kills_in_store = 0;
  uint64_t kills_in_recovery = 0;
  uint64_t operations = 0;
  uint64_t durable = 0;       // stores acknowledged kDurable
  uint64_t deletes = 0;       // acknowledged
  uint64_t demanded = 0;      // chunks that had to be there, over all rounds
  uint64_t looked_at = 0;     // chunks that were there, over all rounds
  uint64_t quantised = 0;     // of them, held by a lossy codec
  uint64_t on_cold_disk = 0;  // of them, on the colder disk
  uint64_t flips = 0;
  uint64_t flips_noticed = 0;
};

class StorageCrashTest : public testing::Test {
 protected:
  static constexpr absl::Duration kPatience = absl::Seconds(60);

  StorageCrashTest() {
    fmt::print("KDN_CRASH_SEED={} repeats this run's choices\n", seed_);
    std::fflush(stdout);
  }
  ~StorageCrashTest() override {
    if (!HasFailure()) return;
    std::ifstream log(WorkerOutput());
    fmt::print("what the workers said:\n{}\n", std::string(std::istreambuf_iterator<char>(log), {}));
  }

  Room RoomIn(uint64_t round) const {
    return std::array{Room::kAmple, Room::kTight, Room::kMoving}[round * 6 / rounds_ % 3];
  }
  // Whether what was durable when the round began, or became so, must be there after it. The first of the rounds in
  // which chunks move finds the first disk too full.
  bool NothingGoesIn(uint64_t round) const {
    const Room room = RoomIn(round);
    return room == Room::kAmple || (room == Room::kMoving && round > 0 && RoomIn(round - 1) == room);
  }
  static std::string ColdCodecIn(uint64_t round) { return std::array{"q8", "zstd", ""}[round % 3]; }
  TieredStoreOptions OptionsIn(uint64_t round) const {
    return CrashStoreOptions(StoreDirectory(), RoomIn(round), ColdCodecIn(round));
  }
  std::string StoreDirectory() const { return (directory_.path() / "store").string(); }
  std::string WorkerOutput() const { return (directory_.path() / "worker.log").string(); }

  // Ends a worker's life.
  struct Death {
    absl::Duration delay;           // from when its store is open …
    uint64_t operations = 0;        // … unless so many operations were answered before
    bool while_recovering = false;  // `delay` counts from the start of the process
  };
  // Runs a worker until then, and tells the oracle what it has logged.
  void RunWorker(uint64_t round, const Death& death);
  void Take(const LogLine& line, uint64_t round);

  // Flips a byte of an extent. Returns the chunk that it belongs to.
  std::optional<size_t> FlipByte();

  // Opens the store and compares.
  void CheckStore(uint64_t round, std::optional<size_t> damaged);
  void CheckChunk(TieredStore& store, size_t chunk, LayerRange layers, Fidelity shown, bool may_miss);
  void ExpectMiss(TieredStore& store, size_t chunk, Fidelity least);
  void Delete(TieredStore& store, size_t chunk);
  void CheckStillWorks(TieredStore& store, size_t chunk, bool may_miss);
  void CheckBudgets(const StoreStats& stats, const TieredStoreOptions& options);
  void CheckSpaceOnDisk(const StoreStats& stats, const TieredStoreOptions& options);

  std::string Describe(size_t chunk, uint64_t round) const {
    return fmt::format("round {}, chunk number {} ({}); what was done to it:\n{}", round, chunk,
                       chunks_.key(chunk).ToShortHex(), oracle_.History(chunk));
  }

  const uint64_t rounds_ = FromEnvironment("KDN_CRASH_ROUNDS", 100);
  const uint64_t seed_ = FromEnvironment("KDN_CRASH_SEED", std::random_device()());
  std::mt19937_64 random_{seed_};
  const CrashChunks chunks_{seed_};
  TemporaryDirectory directory_{"kdn-storage-crash-"};
  Oracle oracle_{chunks_.size()};
  uint64_t next_id_ = uint64_t{1} << 32;  // of operations of this process
  Tally tally_;
};

void StorageCrashTest::Take(const LogLine& line, uint64_t round) {
  switch (line.kind) {
    case LogLine::Kind::kReady:
      return;
    case LogLine::Kind::kBegin:
      oracle_.Begin(line);
      return;
    case LogLine::Kind::kEnd: {
      oracle_.End(line);
      ++tally_.operations;
      const bool store = line.operation == LogLine::Operation::kPut;
      const bool removal = line.operation == LogLine::Operation::kDelete;
      if (line.code == absl::StatusCode::kOk) {
        if (store && line.ack == Ack::kDurable) ++tally_.durable;
        if (removal) ++tally_.deletes;
        return;
      }
      // Only what is not there cannot be deleted, and only in narrow budgets, with pins, does something not fit.
      const bool allowed = (removal && line.code == absl::StatusCode::kNotFound) ||
                           (store && !NothingGoesIn(round) && line.code == absl::StatusCode::kResourceExhausted);
      EXPECT_TRUE(allowed) << "round " << round << ": " << line.text << "\n" << FormatLogLine(line);
      return;
    }
    case LogLine::Kind::kBroken:
      ADD_FAILURE() << "round " << round << ", in the worker: " << line.text;
      return;
  }
  ADD_FAILURE() << "unknown line: " << FormatLogLine(line);
}

void StorageCrashTest::RunWorker(uint64_t round, const Death& death) {
  const std::string pipe = (directory_.path() / "log").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0) << std::strerror(errno);
  const int log = open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(log, 0) << std::strerror(errno);
  const char* const room = std::array{"ample", "tight", "moving"}[static_cast<size_t>(RoomIn(round))];
  std::vector<std::string> argv = {KDN_STORAGE_CRASH_WORKER_PATH};
  argv.insert(argv.end(), {"--directory", StoreDirectory(), "--log", pipe, "--room", room});
  argv.insert(argv.end(), {"--chunk-seed", std::to_string(seed_), "--seed", std::to_string(random_())});
  if (const std::string codec = ColdCodecIn(round); !codec.empty()) {
    argv.insert(argv.end(), {"--cold-codec", codec});
  }
  absl::StatusOr<ChildProcess> worker = ChildProcess::Start(argv, WorkerOutput());
  ASSERT_TRUE(worker.ok()) << worker.status();

  std::string text;
  const auto take = [&](uint64_t* ended) {
    bool ready = false;
    size_t begin = 0;
    for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const absl::StatusOr<LogLine> line = ParseLogLine(text.substr(begin, end - begin));
      EXPECT_TRUE(line.ok()) << line.status();
      if (!line.ok()) continue;
      ready = ready || line->kind == LogLine::Kind::kReady;
      if (line->kind == LogLine::Kind::kEnd) ++*ended;
      Take(*line, round);
    }
    text.erase(0, begin);
    return ready;
  };
  // Reads what there is; false at the end.
  std::vector<char> bytes(size_t{64} << 10);
  const auto read_some = [&] {
    const ssize_t got = read(log, bytes.data(), bytes.size());
    if (got > 0) text.append(bytes.data(), static_cast<size_t>(got));
    return got > 0;
  };

  uint64_t ended = 0;
  bool ready = death.while_recovering;
  bool alive = true;
  absl::Time deadline = absl::Now() + (ready ? death.delay : kPatience);
  while (ended < death.operations) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    pollfd waiting = {.fd = log, .events = POLLIN, .revents = 0};
    const timespec timeout = absl::ToTimespec(std::min(left, absl::Seconds(1)));
    if (ppoll(&waiting, 1, &timeout, nullptr) <= 0) {
      if (worker->Running()) continue;
      alive = false;  // without having opened the log
      break;
    }
    alive = read_some();
    if (!alive) break;
    if (take(&ended) && !ready) {
      ready = true;
      deadline = absl::Now() + death.delay;
    }
  }
  EXPECT_TRUE(alive) << "round " << round << ": the worker has ended by itself";
  EXPECT_TRUE(ready) << "round " << round << ": the worker's store did not open";
  worker->Kill();
  while (read_some()) {
  }
  take(&ended);
  close(log);
  std::filesystem::remove(pipe);
  EXPECT_EQ(text, "") << "a line was cut";

  if (death.while_recovering) {
    ++tally_.kills_in_recovery;
  } else {
    ++tally_.kills;
    if (oracle_.under_way() > 0) ++tally_.kills_in_operation;
    if (oracle_.StoreUnderWay()) ++tally_.kills_in_store;
  }
  oracle_.Crash();
}

std::optional<size_t> StorageCrashTest::FlipByte() {
  struct Place {
    std::string file;
    uint64_t offset = 0;
    uint64_t length = 0;
    size_t chunk = 0;
  };
  std::vector<Place> extents;
  std::vector<char> content;
  for (const char* const disk : {"warm", "cold"}) {
    const std::filesystem::path segments = std::filesystem::path(StoreDirectory()) / disk / "segments";
    for (const auto& entry : std::filesystem::directory_iterator(segments)) {
      std::ifstream in(entry.path(), std::ios::binary);
      content.assign(std::istreambuf_iterator<char>(in), {});
      for (uint64_t at = 0; at + kDiskBlock <= content.size(); at += kDiskBlock) {
        // docs/formats.md, "Segment files".
        const char* const header = content.data() + at;
        if (std::memcmp(header, "KDNextnt", 8) != 0) continue;
        uint32_t blocks = 0;
        ChunkKey key;
        std::memcpy(&blocks, header + 20, sizeof blocks);
        std::memcpy(key.bytes.data(), header + 24, key.bytes.size());
        const size_t chunk = chunks_.Find(key);
        EXPECT_LT(chunk, chunks_.size()) << "an extent of a chunk that nobody stored: " << key.ToHex();
        if (chunk < chunks_.size()) extents.push_back({entry.path(), at, uint64_t{blocks} * kDiskBlock, chunk});
      }
    }
  }
  if (extents.empty()) return std::nullopt;
  const Place& place = extents[random_() % extents.size()];
  const auto at = static_cast<off_t>(place.offset + random_() % place.length);
  const int file = open(place.file.c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_GE(file, 0) << place.file;
  uint8_t byte = 0;
  EXPECT_EQ(pread(file, &byte, 1, at), 1);
  byte ^= static_cast<uint8_t>(1u << random_() % 8);
  EXPECT_EQ(pwrite(file, &byte, 1, at), 1);
  close(file);
  oracle_.Note(place.chunk, fmt::format("byte {} of {} was flipped; the extent begins at {} and has {} bytes", at,
                                        place.file, place.offset, place.length));
  ++tally_.flips;
  return place.chunk;
}

void StorageCrashTest::CheckBudgets(const StoreStats& stats, const TieredStoreOptions& options) {
  EXPECT_LE(stats.memory.bytes, options.memory_bytes);
  ASSERT_EQ(stats.disks.size(), options.disks.size());
  for (size_t i = 0; i < stats.disks.size(); ++i) EXPECT_LE(stats.disks[i].bytes, options.disks[i].bytes) << i;
}

void StorageCrashTest::CheckSpaceOnDisk(const StoreStats& stats, const TieredStoreOptions& options) {
  // For the file system's map of each file; a restart leaves so much alone.
  constexpr uint64_t kMapBytes = uint64_t{64} << 10;
  for (size_t i = 0; i < stats.disks.size(); ++i) {
    uint64_t taken = 0;
    uint64_t allowed = stats.disks[i].bytes;
    for (const auto& entry : std::filesystem::directory_iterator(options.disks[i].path + "/segments")) {
      struct stat info {};
      ASSERT_EQ(stat(entry.path().c_str(), &info), 0) << entry.path();
      taken += static_cast<uint64_t>(info.st_blocks) * 512;
      allowed += kMapBytes;
    }
    EXPECT_LE(taken, allowed) << "disk " << i << ": its segments take more than its chunks do";
  }
}

void StorageCrashTest::ExpectMiss(TieredStore& store, size_t chunk, Fidelity least) {
  const FetchedChunk fetched = store.Fetch(chunks_.space_of(chunk), chunks_.key(chunk), {}, least);
  EXPECT_THAT(fetched.miss.reason, testing::AnyOf(MissReason::kNotFound, MissReason::kFidelity)) << fetched.miss.detail;
  EXPECT_TRUE(fetched.slabs.empty());
}

void StorageCrashTest::CheckChunk(TieredStore& store, size_t chunk, LayerRange layers, Fidelity shown, bool may_miss) {
  if (shown < Fidelity::kExact) {
    const FetchedChunk exact = store.Fetch(chunks_.space_of(chunk), chunks_.key(chunk), layers, Fidelity::kExact);
    if (exact.miss.reason == MissReason::kNone) {
      EXPECT_EQ(chunks_.Check(chunk, Fidelity::kExact, layers, exact), absl::OkStatus());
    }
  }
  const FetchedChunk fetched = store.Fetch(chunks_.space_of(chunk), chunks_.key(chunk), layers, shown);
  if (fetched.miss.reason == MissReason::kNone) {
    EXPECT_EQ(chunks_.Check(chunk, shown, layers, fetched), absl::OkStatus());
    return;
  }
  EXPECT_TRUE(may_miss) << MissReasonName(fetched.miss.reason) << ": " << fetched.miss.detail;
  // A damaged chunk is dropped when that is noticed.
  const FetchedChunk again = store.Fetch(chunks_.space_of(chunk), chunks_.key(chunk), layers, shown);
  EXPECT_NE(again.miss.reason, MissReason::kCorrupt) << again.miss.detail;
  if (again.miss.reason == MissReason::kNone) {
    EXPECT_EQ(chunks_.Check(chunk, shown, layers, again), absl::OkStatus());
  }
}

void StorageCrashTest::Delete(TieredStore& store, size_t chunk) {
  LogLine line{
      .kind = LogLine::Kind::kBegin, .id = next_id_++, .operation = LogLine::Operation::kDelete, .chunk = chunk};
  oracle_.Begin(line);
  const absl::Status deleted = store.Delete(chunks_.space_of(chunk), chunks_.key(chunk));
  EXPECT_TRUE(deleted.ok() || absl::IsNotFound(deleted)) << deleted;
  line.code = deleted.code();
  oracle_.End(line);
  ExpectMiss(store, chunk, Fidelity::kApproximate);
}

void StorageCrashTest::CheckStillWorks(TieredStore& store, size_t chunk, bool may_miss) {
  Delete(store, chunk);
  LogLine line{.kind = LogLine::Kind::kBegin,
               .id = next_id_++,
               .operation = LogLine::Operation::kPut,
               .chunk = chunk,
               .ack = Ack::kDurable};
  oracle_.Begin(line);
  const absl::Status stored = store.Put(chunks_.Make(chunk, Fidelity::kExact), Ack::kDurable);
  EXPECT_TRUE(stored.ok()) << stored;
  line.code = stored.code();
  oracle_.End(line);
  const FetchedChunk fetched = store.Fetch(chunks_.space_of(chunk), chunks_.key(chunk), {}, Fidelity::kExact);
  if (fetched.miss.reason == MissReason::kNone) {
    EXPECT_EQ(chunks_.Check(chunk, Fidelity::kExact, {}, fetched), absl::OkStatus());
  } else {
    EXPECT_TRUE(may_miss) << fetched.miss.detail;
  }
}

void StorageCrashTest::CheckStore(uint64_t round, std::optional<size_t> damaged) {
  const bool nothing_goes = NothingGoesIn(round);
  const bool moving = RoomIn(round) == Room::kMoving;
  const TieredStoreOptions options = OptionsIn(round);
  absl::StatusOr<std::unique_ptr<TieredStore>> opened = TieredStore::Open(options);
  ASSERT_TRUE(opened.ok()) << "round " << round << ": " << opened.status();
  TieredStore& store = **opened;
  StoreStats stats = store.Stats();
  CheckBudgets(stats, options);

  // What is there, before anything moves.
  std::vector<std::optional<Fidelity>> shown(chunks_.size());
  uint64_t visible = 0;
  for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    SCOPED_TRACE(Describe(chunk, round));
    for (const Fidelity least : {Fidelity::kExact, Fidelity::kApproximate}) {
      const FoundChunk found = store.Lookup(chunks_.space_of(chunk), {&chunks_.key(chunk), 1}, least).front();
      if (found.miss.reason != MissReason::kNone) {
        EXPECT_THAT(found.miss.reason, testing::AnyOf(MissReason::kNotFound, MissReason::kFidelity))
            << found.miss.detail;
        continue;
      }
      EXPECT_EQ(chunks_.CheckManifest(chunk, least, *found.manifest), absl::OkStatus());
      shown[chunk] = found.manifest->fidelity;
      ++visible;
      ++tally_.looked_at;
      if (found.manifest->fidelity == Fidelity::kQuantised) ++tally_.quantised;
      if (found.tier == TierKind::kColdDisk) ++tally_.on_cold_disk;
      break;
    }
    const bool may_quantise = moving && chunks_.lossy_allowed(chunk);
    if (may_quantise) oracle_.ExcuseQuantised(chunk);
    const std::optional<Fidelity> must = oracle_.MustShow(chunk);
    if (must.has_value() && nothing_goes) {
      ++tally_.demanded;
      // A flipped byte is in the slabs, not in the rows that say that the chunk is there.
      EXPECT_TRUE(shown[chunk].has_value() && *shown[chunk] >= *must) << "a durable chunk is lost";
    }
    if (shown[chunk].has_value()) {
      EXPECT_TRUE(oracle_.MayShow(chunk, *shown[chunk])) << "a chunk is there that was deleted or never begun";
      oracle_.Note(chunk, fmt::format("round {}: it is there, fidelity {}", round, static_cast<int>(*shown[chunk])));
      oracle_.Found(chunk, *shown[chunk]);
      // What is found next may move others down.
      if (may_quantise) {
        oracle_.ExcuseQuantised(chunk);
        shown[chunk] = std::min(*shown[chunk], Fidelity::kQuantised);
      }
    } else {
      oracle_.Note(chunk, fmt::format("round {}: it is not there", round));
      oracle_.Gone(chunk);
    }
    if (chunk == damaged) oracle_.Excuse(chunk);
  }
  // And nothing else is.
  EXPECT_LE(stats.disks[0].chunks, visible);
  EXPECT_LE(stats.disks[1].chunks, visible);
  EXPECT_GE(stats.disks[0].chunks + stats.disks[1].chunks, visible);

  if (damaged.has_value() && round % 2 == 0) store.Scrub();
  for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    SCOPED_TRACE(Describe(chunk, round));
    if (!shown[chunk].has_value()) {
      ExpectMiss(store, chunk, Fidelity::kApproximate);
      continue;
    }
    // Where chunks move, a few at most do so now, for that takes time: a fetch without the first layer moves nothing.
    const bool whole = !moving || random_() % 8 == 0;
    CheckChunk(store, chunk, {.begin = whole ? 0U : 1U}, *shown[chunk], !nothing_goes || chunk == damaged);
    if (!moving) continue;
    // One at a time, and without large ones, so that nothing has to go.
    if (chunk >= chunks_.small_chunks()) Delete(store, chunk);
    store.Settle();
  }
  if (damaged.has_value()) store.Scrub();  // a second copy may be the damaged one
  stats = store.Stats();
  uint64_t corrupt = 0;
  for (const TierStats& disk : stats.disks) corrupt += disk.corrupt;
  EXPECT_LE(corrupt, damaged.has_value() ? 1u : 0u) << "round " << round;
  tally_.flips_noticed += corrupt;

  CheckStillWorks(store, damaged.value_or(random_() % chunks_.small_chunks()), !nothing_goes);
  store.Flush();
  store.Settle();
  stats = store.Stats();
  CheckBudgets(stats, options);
  opened->reset();
  oracle_.Crash();  // nothing is under way
  if (!nothing_goes) oracle_.ExcuseAll();
  CheckSpaceOnDisk(stats, options);
}

TEST_F(StorageCrashTest, KilledAHundredTimesItLosesNothingDurableAndShowsNothingTorn) {
  const absl::Time begin = absl::Now();
  for (uint64_t round = 0; round < rounds_ && !HasFailure(); ++round) {
    if (!NothingGoesIn(round)) oracle_.ExcuseAll();
    if (random_() % 4 == 0) {
      RunWorker(round, {.delay = absl::Milliseconds(static_cast<int64_t>(random_() % 50)),
                        .operations = std::numeric_limits<uint64_t>::max(),
                        .while_recovering = true});
    }
    RunWorker(round, {.delay = absl::Milliseconds(static_cast<int64_t>(5 + random_() % 200)),
                      .operations = 1 + random_() % 1000});
    if (HasFailure()) return;
    std::optional<size_t> damaged;
    if (round % 8 == 5) damaged = FlipByte();
    CheckStore(round, damaged);
  }
  fmt::print(
      "{} rounds in {:.1f} s; {} kills, {} with operations under way, {} with stores under way; {} more kills in "
      "recovery\n"
      "{} operations; {} stores acknowledged durable, {} deletes; {} durable chunks demanded back, {} chunks found, {} "
      "of "
      "them on the colder disk, {} quantised\n"
      "{} bytes flipped, {} of them noticed as damage\n",
      rounds_, absl::ToDoubleSeconds(absl::Now() - begin), tally_.kills, tally_.kills_in_operation,
      tally_.kills_in_store, tally_.kills_in_recovery, tally_.operations, tally_.durable, tally_.deletes,
      tally_.demanded, tally_.looked_at, tally_.on_cold_disk, tally_.quantised, tally_.flips, tally_.flips_noticed);

  if (HasFailure()) return;
  // Otherwise the rounds have proved nothing.
  EXPECT_EQ(tally_.kills, rounds_);
  EXPECT_GE(tally_.kills_in_operation * 2, tally_.kills);
  if (rounds_ >= 10) {
    EXPECT_GE(tally_.kills_in_store * 4, tally_.kills);
    EXPECT_GT(tally_.durable, rounds_);
    EXPECT_GT(tally_.demanded, rounds_);
  }
  if (rounds_ >= 50) {
    EXPECT_GT(tally_.deletes, 0u);
    EXPECT_GT(tally_.on_cold_disk, 0u);
    EXPECT_GT(tally_.quantised, 0u);
    EXPECT_GT(tally_.flips_noticed, 0u);
  }
}

}  // namespace
}  // namespace kdn
