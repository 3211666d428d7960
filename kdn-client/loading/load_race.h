// LoadRace: who brings which chunk of a prompt's prefix into the cache, the engine from the front or the network from
// the back of what is held, until they meet.
//
//   LoadRace race(chunks, models, {.patience = patience});
//   race.Found(hits, tiers);  // as soon as a lookup has told; the engine need not wait for it
//   engine:  while (true) { const auto move = race.EngineMove(now);
//                           compute: prefill chunk move.chunk, then race.Computed(move.chunk, elapsed)
//                           wait:    until move.until, or until the loader has news
//                           done:    chunks before move.chunk are in place; compute what comes after them }
//   loader:  while (!race.loading_over()) { if (auto batch = race.NextBatch(now)) { fetch chunks [batch->begin,
//            batch->end) by batch->deadline, wishing for batch->codec; race.Loaded(*batch, {.ready = ready, …}, now); }
//            else wait for news of the engine }
//
// The engine computes whenever that is expected to be quicker than to wait; a batch has to be there by the time that
// the engine would reach it; memory that a batch may be writing to is never computed into. Whatever the network does,
// the engine is held up for no longer than the patience and what loading has saved it so far, or, where much is to be
// gained and nothing has come late yet, a quarter of the time that one chunk takes to compute.
//
// The engine waits for the lookup only where its answer and a chunk are expected to come sooner than a chunk is
// computed; over any slower link a prompt of which nothing is held waits for nothing.
//
// For each batch it picks the codec on the wire, by the slowest of node, wire and decoder: of those that lose nothing
// the quickest, and as they are stored where that is about as quick; of those that do, where the request accepts them
// and the exact ones do not meet its aim, the one that loses least and does, or else the quickest.
//
// Time and speeds are given to it, so that it can be simulated; it learns from what it is told (LoadModels), and tells
// why it did what it did.
//
// Thread-safety: none; its owner guards it.
#ifndef KDN_KDN_CLIENT_LOADING_LOAD_RACE_H_
#define KDN_KDN_CLIENT_LOADING_LOAD_RACE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kdn-client/loading/codec_model.h"
#include "kdn-client/loading/link_model.h"
#include "kdn-client/loading/prefill_model.h"

namespace kdn {

// A chunk of the prompt; a node may hold it.
struct RaceChunk {
  uint32_t first_token = 0;
  uint32_t tokens = 0;
  uint64_t raw_bytes = 0;
};

// What an engine knows from request to request.
struct LoadModels {
  PrefillModel prefill;
  LinkModel link;
  CodecModel codecs;
};

struct LoadRaceOptions {
  absl::Duration patience = {};            // how long the engine may be held up before anything has been saved
  Fidelity least = Fidelity::kExact;       // no codec below it is wished for
  std::optional<absl::Duration> aim = {};  // by when what is held is to be in place; absent: a quarter of computing it
};

class LoadRace {
 public:
  struct Move {
    enum class Kind { kCompute, kWait, kDone };
    Kind kind = Kind::kDone;
    size_t chunk = 0;       // to compute; or before which all are in place
    absl::Time until = {};  // of a wait
  };
  struct Batch {
    size_t begin = 0;
    size_t end = 0;
    absl::Time started;
    absl::Time deadline;
    CodecWish codec = CodecWish::kStored;
  };
  // What became of a batch.
  struct Arrival {
    size_t ready = 0;            // its last so many chunks are in place, whole
    uint64_t encoded_bytes = 0;  // of those
    absl::Duration work = {};    // of the receiver
  };
  struct Counts {
    size_t computed = 0;
    size_t loaded = 0;
    size_t batches = 0;
    size_t late_batches = 0;  // that were not there by their deadline
    absl::Duration waited;    // by the engine
  };

  // The models outlive this.
  LoadRace(std::vector<RaceChunk> chunks, LoadModels& models, const LoadRaceOptions& options);

  // The lookup has ended: the first `hits` chunks are held, in `tiers` as far as that is known, and nothing beyond them
  // will be loaded.
  void Found(size_t hits, std::span<const TierKind> tiers = {});

  Move EngineMove(absl::Time now);
  void Computed(size_t chunk, absl::Duration elapsed);

  // The next batch to fetch; nothing when there is none worth fetching, or not yet.
  std::optional<Batch> NextBatch(absl::Time now);
  // No batch will come any more.
  bool loading_over() const { return gave_up_ || over(); }
  void Loaded(const Batch& batch, const Arrival& arrival, absl::Time now);

  bool found() const { return held_.has_value(); }
  bool over() const { return front_ >= back_; }
  const Counts& counts() const { return counts_; }
  // By which the last batch was wished for.
  CodecWish codec() const { return wished_; }
  // One sentence, for people.
  std::string Why() const;

 private:
  // Expected seconds; infinite when unknown.
  double ComputeSeconds(size_t begin, size_t end) const;
  double LoadSeconds(size_t begin, size_t end) const { return LoadSeconds(begin, end, codec_); }
  double LoadSeconds(size_t begin, size_t end, CodecWish codec) const;
  bool KnowsLink() const { return models_.link.Bandwidth(TierKind::kNone).has_value(); }
  // How long the engine may wait for the lookup, and whether that may be worth it.
  absl::Duration LookupPatience() const { return options_.patience / 2; }
  bool LookupIsNear() const;
  void PickCodec();
  CodecWish QuickestOf(std::span<const CodecWish> codecs, CodecWish unless) const;
  void Learn(const Batch& batch, const Arrival& arrival, absl::Duration elapsed);
  // Of the wire alone, for `encoded_bytes` of chunks [begin, end).
  double WireSeconds(size_t begin, size_t end, double encoded_bytes) const;
  // Tells the link of them, by tier.
  template <typename Tell>
  void TellLink(size_t begin, size_t end, double encoded_bytes, absl::Duration elapsed, Tell&& tell);
  // Where engine and network would meet if the engine were at `front` after `head_start` seconds.
  size_t MeetingPoint(size_t front, double head_start) const;
  // Seconds that the engine may be held up, from now on.
  double Allowance() const;
  Move Wait(absl::Time now, absl::Time until);

  const std::vector<RaceChunk> chunks_;
  LoadModels& models_;
  const LoadRaceOptions options_;

  std::optional<size_t> held_;            // the lookup's answer
  std::vector<TierKind> tiers_;           // of each chunk; kNone where that is not known
  CodecWish codec_ = CodecWish::kStored;  // as it would be wished for now …
  std::string pick_because_;
  CodecWish wished_ = CodecWish::kStored;  // … and as it was, with the last batch
  std::string wished_because_;
  size_t front_ = 0;  // chunks before it were computed, or are being computed
  size_t back_;       // of those that are held, the chunks from it on are in place
  bool computing_ = false;
  absl::Time compute_ends_;  // as expected
  std::optional<Batch> flight_;
  bool gave_up_ = false;  // nothing more is fetched
  double saved_ = 0;      // seconds of computing that loading has spared the engine
  std::optional<absl::Time> waiting_since_;
  Counts counts_;
  std::string gave_up_because_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_LOADING_LOAD_RACE_H_
