// RunTable: the runs that a policy has seen. A run is the part of a chain that one request used and that has one
// history: its chunks were used together, and will most likely be used together or not at all. What is known of a
// chunk's past is kept once per run, not per chunk.
//
// Runs are counted references: each chunk and each sample holds the run of its last use.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_RUN_TABLE_H_
#define KDN_STORAGE_EVICTION_RUN_TABLE_H_

#include <cstdint>
#include <vector>

#include "storage/eviction/memory.h"

namespace kdn {

using RunId = uint32_t;
inline constexpr RunId kNoRun = UINT32_MAX;

struct ChainRun {
  uint64_t used = 0;  // tick of its latest use
  uint64_t tip = 0;   // hash of the chunk that was used then: the run ends there
  uint32_t gap = 0;   // ticks between this use of the chain and the one before; 0: it is the first
  uint32_t references = 0;
  uint32_t new_chunks = 0;  // that this request added to the chain
  uint8_t turn = 0;         // requests that used the chain before this one
  bool partial = false;     // a single chunk shorter than its parent: the ragged end of a prompt
};

class RunTable {
 public:
  // A new run with one reference.
  RunId Add(const ChainRun& run) {
    RunId id = 0;
    if (free_.empty()) {
      id = static_cast<RunId>(runs_.size());
      GrowTo(runs_, runs_.size() + 1);
    } else {
      id = free_.back();
      free_.pop_back();
    }
    runs_[id] = run;
    runs_[id].references = 1;
    return id;
  }
  RunId Share(RunId id) {
    ++runs_[id].references;
    return id;
  }
  void Release(RunId id) {
    if (--runs_[id].references == 0) free_.push_back(id);
  }

  ChainRun& operator[](RunId id) { return runs_[id]; }
  const ChainRun& operator[](RunId id) const { return runs_[id]; }

  size_t live() const { return runs_.size() - free_.size(); }
  size_t MemoryBytes() const { return HeapBytes(runs_) + HeapBytes(free_); }

 private:
  std::vector<ChainRun> runs_;
  std::vector<RunId> free_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_RUN_TABLE_H_
