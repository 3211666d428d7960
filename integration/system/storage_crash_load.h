// What the storage crash test and its worker agree on: the stores that are opened, the chunks that are stored in them,
// and the log by which the worker tells what it does.
//
//   const CrashChunks chunks(seed);  // the same in both processes
//   store->Put(chunks.Make(i, Fidelity::kExact), Ack::kDurable);
//   absl::Status right = chunks.Check(i, Fidelity::kExact, {}, store->Fetch(chunks.space_of(i), chunks.key(i), ...));
//
// Thread-safety: CrashChunks may be used from any thread; all else are values and pure functions.
#ifndef KDN_INTEGRATION_SYSTEM_STORAGE_CRASH_LOAD_H_
#define KDN_INTEGRATION_SYSTEM_STORAGE_CRASH_LOAD_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/chunk.h"
#include "storage/format/kv_space.h"
#include "storage/tiered_store.h"

namespace kdn {

// How much room the store has for the chunks of CrashChunks.
enum class Room : uint8_t {
  kAmple,   // each disk could take all of them several times over: nothing has to leave a disk
  kTight,   // both disks together take about half of them: chunks move down, and go
  kMoving,  // the first disk takes about half of the small ones, the colder one all: chunks move down, but if only
            // small ones are stored, one at a time, nothing has to go
};

// A small memory tier, a disk and a colder disk under `directory`. `cold_codec` as in DiskTierOptions.
TieredStoreOptions CrashStoreOptions(const std::string& directory, Room room, const std::string& cold_codec);

// A fixed set of chunks, of which `seed` decides the bytes: chains and single chunks of three spaces, of 4 KB to 3 MB;
// some by the codec zstd, some of which a lossy codec is allowed. Each chunk also has a less exact variant of the same
// key, with other bytes.
class CrashChunks {
 public:
  explicit CrashChunks(uint64_t seed);

  size_t size() const { return plans_.size(); }
  const ChunkKey& key(size_t chunk) const { return plans_[chunk].key; }
  const SpaceId& space_of(size_t chunk) const { return spaces_[plans_[chunk].space].id; }
  bool lossy_allowed(size_t chunk) const { return plans_[chunk].lossy_allowed; }
  // The first chunk of each chain and how many chunks it has; a single chunk is a chain of one.
  struct Chain {
    size_t first = 0;
    size_t length = 0;
  };
  const std::vector<Chain>& chains() const { return chains_; }
  // So many chunks, and chains, from the first one on are small: 4 to 32 KB.
  size_t small_chunks() const { return small_chunks_; }
  size_t small_chains() const { return small_chains_; }
  // The chunk of this key, or size().
  size_t Find(const ChunkKey& key) const;

  // What is stored; made when it is asked for first, and kept. `fidelity` is kExact or kApproximate.
  const Chunk& Make(size_t chunk, Fidelity fidelity) const;

  // That what a fetch for at least `least` delivered is the chunk: manifest, checksums, and the bytes that Make gives,
  // or, by a lossy codec where that is allowed, values close to them. DATA_LOSS says what is wrong.
  absl::Status Check(size_t chunk, Fidelity least, LayerRange layers, const FetchedChunk& fetched) const;
  // The same for a manifest alone.
  absl::Status CheckManifest(size_t chunk, Fidelity least, const Manifest& manifest) const;

 private:
  struct Space {
    KvSpace space;
    SpaceId id;
  };
  struct Plan {
    size_t space = 0;
    ChunkKey key;
    ChunkKey parent;
    uint32_t first_token = 0;
    uint32_t tokens = 0;
    CodecId codec = CodecId::kRaw;
    bool lossy_allowed = false;
  };
  struct Made {
    std::once_flag once[2];  // exact, less exact
    Chunk chunk[2];
  };

  void AddChain(size_t space, uint32_t tokens, size_t length);
  Chunk Build(size_t chunk, Fidelity fidelity) const;
  Buffer RawSlab(size_t chunk, Fidelity fidelity, size_t slab, const SlabShape& shape) const;

  const uint64_t seed_;
  std::vector<Space> spaces_;
  std::vector<Plan> plans_;
  std::vector<Chain> chains_;
  size_t small_chunks_ = 0;
  size_t small_chains_ = 0;
  mutable std::deque<Made> made_;
};

// The worker's log: a line before each operation on a chunk, and one after its answer. A line is written at once, so
// the order of lines is the order in time: an operation whose end precedes another's beginning was over by then.
struct LogLine {
  enum class Kind : char {
    kReady = 'R',   // the store is open; the load begins
    kBegin = 'B',   // `operation` begins …
    kEnd = 'E',     // … and has ended with `code`
    kBroken = 'X',  // the worker saw what must not be; `text` says what
  };
  enum class Operation : char { kPut = 'p', kDelete = 'd', kFetch = 'f', kOther = 'o' };

  Kind kind = Kind::kReady;
  uint64_t id = 0;  // of the operation
  Operation operation = Operation::kOther;
  size_t chunk = 0;
  Fidelity fidelity = Fidelity::kExact;  // of what is put
  Ack ack = Ack::kMemory;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string text = {};
};

// One line, with the newline; shorter than what a pipe takes at once.
std::string FormatLogLine(const LogLine& line);
// `text` is without the newline. INVALID_ARGUMENT when it is no log line.
absl::StatusOr<LogLine> ParseLogLine(const std::string& text);

}  // namespace kdn

#endif  // KDN_INTEGRATION_SYSTEM_STORAGE_CRASH_LOAD_H_
