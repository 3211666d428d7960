// SegmentFinder: finds stored segments anywhere in a prompt, at any offset, without separators.
//
//   SegmentFinder finder({});
//   finder.Add(document);                                    // whenever KV of it has been stored
//   for (const FoundRun& run : finder.Find(prompt.first(prompt.size() - 1))) {    // the last token is always computed
//     const ChunkSpan chunks = ChunksOf(run, space.chunk_tokens);
//     // fetch chunks [chunks.first, chunks.end) of ChunkChain(…, run.segment->tokens): of them, tokens
//     // [run.source, run.source + run.tokens) of the segment are tokens [run.begin, …) of the prompt
//   }
//
// Windows of `window` tokens at multiples of `stride` in each segment are indexed by a rolling hash, which is rolled
// over all offsets of a prompt; what has equal hashes is compared token by token, so a run is never wrong. From left to
// right, the first offset at which an indexed window stands begins a run: of the segments that stand there the one
// that agrees the longest, to the left and to the right (of equals, the one with the least source, then the one added
// first). The search goes on after it. Where it reaches back into the run before it, which must be no longer than
// kReach windows, the tokens of both are the longer one's (the other keeps a window's worth, or nothing): a heading
// that many documents share does not cut off the document that it belongs to.
//
// What it misses. A piece of a segment of `window` + `stride` - 1 tokens or more is found wherever it stands; a shorter
// one only where a window at a multiple of `stride` lies in it, and never one below `window`. This holds for each
// segment by itself: a longer run may claim the tokens, and of windows that are the same in more than `max_candidates`
// places only that many are indexed (dropped_windows counts the rest).
//
// Identity. A chunk's key needs all tokens of its segment from the start, which is what `run.segment` holds. Where a
// run begins inside a segment, its KV was computed after other tokens than stand before it here: it is approximate, as
// all blended KV is. Where it begins within a chunk, of that chunk only the run's tokens are of use.
//
// A segment that is the front of another is held by that one: the chunks that both have, have the same keys, but for
// the shorter one's last where that is not whole.
//
// Costs. Find: a hash table's probe a token, and at most max_candidates comparisons where there is a hit; linear in the
// prompt whatever it and the segments hold. Memory is bounded by max_bytes; beyond it the segments least recently added
// or found go.
//
// Thread-safety: all methods may be called from any thread; one at a time gets on. What Find returns stays as it is.
#ifndef KDN_KDN_CLIENT_BLEND_SEGMENT_FINDER_H_
#define KDN_KDN_CLIENT_BLEND_SEGMENT_FINDER_H_

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "kdn-client/blend/window_hash.h"
#include "storage/base/mutex.h"
#include "storage/format/chunk_key.h"

namespace kdn {

struct SegmentFinderOptions {
  uint32_t window = 32;                  // tokens, 1 or more
  uint32_t stride = 16;                  // tokens, 1 or more
  size_t max_bytes = size_t{256} << 20;  // tokens and index; some 8 bytes a token at the default stride
  uint32_t max_candidates = 8;           // places indexed for one hash, 1 to 1024
  // Of the hash; 0: drawn at random, so that nobody can prepare windows that collide. Which runs are found does not
  // depend on it, but where that many collide that max_candidates drops some.
  uint64_t hash_base = 0;
};

// A segment that is held; lives as long as anyone refers to it.
struct FoundSegment {
  uint64_t id = 0;  // never used twice by a finder
  std::vector<Token> tokens;
};
using FoundSegmentPtr = std::shared_ptr<const FoundSegment>;

// Tokens [begin, begin + tokens) of the prompt are tokens [source, source + tokens) of the segment.
struct FoundRun {
  uint32_t begin = 0;
  uint32_t tokens = 0;
  uint32_t source = 0;
  FoundSegmentPtr segment = {};

  uint32_t end() const { return begin + tokens; }
  // Its KV was computed after the same tokens, none.
  bool AtFront() const { return begin == 0 && source == 0; }
};

// Chunks [first, end) of a segment, counted from 0.
struct ChunkSpan {
  uint32_t first = 0;
  uint32_t end = 0;
  friend bool operator==(const ChunkSpan&, const ChunkSpan&) = default;
};

// Those that have a token of the run; the first and the last may have others too. `chunk_tokens` is 1 or more.
ChunkSpan ChunksOf(const FoundRun& run, uint32_t chunk_tokens);
// The part of the run that consists of whole chunks (a segment's last one may be short); nothing where there is none.
std::optional<FoundRun> CutToChunks(const FoundRun& run, uint32_t chunk_tokens);

struct SegmentFinderCounts {
  // What is held now.
  uint64_t segments = 0;
  uint64_t tokens = 0;
  uint64_t windows = 0;
  uint64_t dropped_windows = 0;  // not indexed, as max_candidates places of that hash are
  uint64_t bytes = 0;            // an upper estimate
  // What happened so far.
  uint64_t added = 0;
  uint64_t known = 0;       // added again, or the front of one that is held
  uint64_t superseded = 0;  // the front of one that was added
  uint64_t too_short = 0;
  uint64_t too_long = 0;
  uint64_t removed = 0;
  uint64_t evicted = 0;
  uint64_t searches = 0;
  uint64_t searched_tokens = 0;
  uint64_t found_tokens = 0;
  uint64_t collisions = 0;  // equal hashes of windows that differ
};

class SegmentFinder {
 public:
  // So many windows long may be a run that a longer one takes tokens from.
  static constexpr uint32_t kReach = 8;

  // INVALID_ARGUMENT naming the option that is out of bounds.
  static absl::StatusOr<std::unique_ptr<SegmentFinder>> Create(const SegmentFinderOptions& options);

  // KV of these tokens, from the start of a segment, can be fetched. Added again, a segment is taken for used, and
  // those of its windows that there was no room for are tried again. Gives the id of what holds the tokens; nothing
  // where it is shorter than a window, or would not fit max_bytes by itself.
  std::optional<uint64_t> Add(std::span<const Token> segment);
  // Its KV is gone. False where there is no such segment (any more).
  bool Remove(uint64_t id);

  // Runs of at least `window` tokens, ascending, not overlapping; none can be prolonged in its segment without
  // overlapping another. Of a prompt beyond 2^32 - 1 tokens, the first that many are searched.
  std::vector<FoundRun> Find(std::span<const Token> prompt);

  SegmentFinderCounts counts() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Slot {
    FoundSegmentPtr segment;
    uint64_t whole_hash = 0;                // of all its tokens
    std::list<uint32_t>::iterator recency;  // in recency_
  };
  // A place where an indexed window stands; those of one hash are a list, in the order in which they were added.
  struct Place {
    uint32_t slot = 0;
    uint32_t position = 0;
    uint32_t next = kNone;
  };
  struct Places {
    uint32_t head = kNone;
    uint32_t count = 0;
  };
  // A place that was found in a prompt: tokens [begin, end) of it.
  struct Match {
    uint32_t begin = 0;
    uint32_t end = 0;
    uint32_t source = 0;
    uint32_t slot = kNone;
    uint32_t length() const { return end - begin; }
  };

  SegmentFinder(const SegmentFinderOptions& options, uint64_t base) : options_(options), hash_(options.window, base) {}

  size_t BytesOf(size_t tokens) const;
  // Of the windows at multiples of the stride.
  std::vector<uint64_t> WindowHashes(std::span<const Token> tokens) const;
  // A slot whose segment begins with `tokens`.
  std::optional<uint32_t> HolderOf(std::span<const Token> tokens, uint64_t whole_hash, uint64_t first_window) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropFrontsOf(std::span<const Token> tokens, uint64_t first_window) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Index(uint32_t slot, std::span<const uint64_t> hashes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void IndexWindow(uint32_t slot, uint32_t position, uint64_t hash) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetWindow(uint32_t slot, uint32_t position, uint64_t hash) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Drop(uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Touch(uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The best match of the window at `at`; nothing where none stands there. It begins at `floor` or later.
  std::optional<Match> BestAt(std::span<const Token> prompt, uint32_t at, uint64_t hash, uint32_t floor)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Adds it after those found, of which the last gives way where it overlaps and is shorter.
  void Append(std::span<const Token> prompt, Match match, std::vector<Match>& found) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SegmentFinderOptions options_;
  const WindowHash hash_;

  mutable Mutex mu_;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> free_slots_ ABSL_GUARDED_BY(mu_);
  std::vector<Place> places_ ABSL_GUARDED_BY(mu_);
  uint32_t free_places_ ABSL_GUARDED_BY(mu_) = kNone;  // a list
  std::list<uint32_t> recency_ ABSL_GUARDED_BY(mu_);   // slots, the latest first
  absl::flat_hash_map<uint64_t, Places> by_window_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, uint32_t> by_whole_hash_ ABSL_GUARDED_BY(mu_);  // slot; of several, any
  absl::flat_hash_map<uint64_t, uint32_t> by_id_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t wanted_windows_ ABSL_GUARDED_BY(mu_) = 0;  // of all segments held, indexed or not
  SegmentFinderCounts counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_SEGMENT_FINDER_H_
