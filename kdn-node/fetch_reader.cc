#include "kdn-node/fetch_reader.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "storage/base/status.h"
#include "storage/delivery_recode.h"

namespace kdn {
namespace {

// LAYER_MAJOR keeps the manifests of all chunks until the end; so many slabs in them (about 50 MB) serve 4,096 chunks
// of a model of 128 layers.
constexpr uint64_t kMaxSlabsHeld = uint64_t{1} << 20;
// Keys that LAYER_MAJOR looks up in one step.
constexpr size_t kLookupBatch = 64;
// Slab bytes that LAYER_MAJOR recodes for one call, each twice: what comes first waits for all of them. Bytes of which
// heads are only copied count for less, as they take less time.
constexpr uint64_t kMaxRecodedByLayer = uint64_t{1} << 30;
constexpr uint64_t kCopiedCountsForOneIn = 8;

// The slabs of layers [begin, end). Slabs are ordered by layer.
std::span<const SlabInfo> SlabsIn(const Manifest& manifest, LayerRange layers) {
  const auto before = [](const SlabInfo& slab, uint32_t layer) { return slab.layer < layer; };
  const auto first = std::lower_bound(manifest.slabs.begin(), manifest.slabs.end(), layers.begin, before);
  const auto last = std::lower_bound(first, manifest.slabs.end(), layers.end, before);
  return {first, last};
}

uint64_t EncodedBytesOf(std::span<const SlabInfo> slabs) {
  uint64_t bytes = 0;
  for (const SlabInfo& slab : slabs) bytes += slab.encoded_size;
  return bytes;
}

FetchItem MissItem(size_t chunk, Miss miss) {
  return {.chunk = static_cast<uint32_t>(chunk), .is_result = true, .miss = std::move(miss)};
}

FetchItem HitItem(size_t chunk, const Manifest& manifest, TierKind tier) {
  absl::StatusOr<std::string> bytes = EncodeManifest(manifest);
  if (!bytes.ok()) return MissItem(chunk, {MissReason::kInternal, MessageOf(bytes.status())});
  return {.chunk = static_cast<uint32_t>(chunk), .is_result = true, .tier = tier, .manifest = *std::move(bytes)};
}

// What both orders have in common: reading some layers of a chunk whose manifest the peer has, or is about to get.
class ReaderBase : public FetchReader {
 public:
  ReaderBase(TieredStore& store, FetchCall call)
      : call_(std::move(call)),
        recoder_(call_.codec, call_.least, call_.heads, store.arena()),
        store_(store),
        fates_(call_.what.keys.size()) {}

  bool recodes() const override { return recoder_.MayChange(); }
  const Codec* codec() const override { return call_.codec; }
  uint64_t recoded_bytes() const override { return recoded_bytes_; }
  const Results& results() const override { return results_; }
  const FetchCall& call() const override { return call_; }

  std::vector<AskedChunk> Asked(MissReason unfinished) const override {
    std::vector<AskedChunk> asked;
    asked.reserve(fates_.size());
    for (size_t i = 0; i < fates_.size(); ++i) {
      const ChunkFate& fate = fates_[i];
      AskedChunk& chunk = asked.emplace_back(
          AskedChunk{.key = call_.what.keys[i], .miss = fate.finished ? fate.result : unfinished, .tier = fate.tier});
      chunk.delivered_bytes = fate.read_bytes;
      if (fate.manifest == nullptr) continue;
      chunk.parent = fate.manifest->parent;
      chunk.first_token = fate.manifest->first_token;
      chunk.tokens = fate.manifest->tokens;
      chunk.bytes = fate.manifest->EncodedBytes();
    }
    return asked;
  }

 protected:
  size_t chunks() const { return call_.what.keys.size(); }

  std::vector<FoundChunk> Lookup(size_t first, size_t n) {
    return store_.Lookup(call_.what.space, std::span(call_.what.keys).subspan(first, n), call_.least);
  }

  FetchedChunk Read(size_t chunk, LayerRange layers) {
    FetchedChunk fetched = store_.Fetch(call_.what.space, call_.what.keys[chunk], layers, call_.least);
    ChunkFate& fate = fates_[chunk];
    if (fetched.manifest != nullptr) {
      fate.manifest = fetched.manifest;
      fate.tier = fetched.tier;
    }
    for (const SlabBytes& slab : fetched.slabs) fate.read_bytes += slab.bytes.size();
    return fetched;
  }

  // The chunk is finished, and `miss` is what the peer is told.
  void TellMiss(size_t chunk, Miss miss, std::vector<FetchItem>& out) {
    Finished(chunk, miss.reason);
    out.push_back(MissItem(chunk, std::move(miss)));
  }

  void Finished(size_t chunk, MissReason result) {
    ++results_[static_cast<size_t>(result)];
    fates_[chunk].finished = true;
    fates_[chunk].result = result;
  }

  // Adds slabs of the chunk that the peer knows as `announced`. False when they are of another: the chunk was deleted
  // and stored anew, encoded otherwise, between two reads.
  static bool AddSlabs(size_t chunk, const ManifestPtr& announced, FetchedChunk fetched, std::vector<FetchItem>& out) {
    if (fetched.manifest != announced && *fetched.manifest != *announced) return false;
    for (SlabBytes& slab : fetched.slabs) {
      out.push_back({.chunk = static_cast<uint32_t>(chunk), .slab = slab.index, .bytes = std::move(slab.bytes)});
    }
    return true;
  }

  static Miss Replaced() {
    return {MissReason::kNotFound, "the chunk was replaced while it was being sent; fetch it again"};
  }

  const FetchCall call_;
  const DeliveryRecoder recoder_;
  uint64_t recoded_bytes_ = 0;

 private:
  struct ChunkFate {
    bool finished = false;
    MissReason result = MissReason::kNone;
    TierKind tier = TierKind::kNone;
    ManifestPtr manifest;  // as stored; null until something of the chunk was read
    uint64_t read_bytes = 0;
  };

  TieredStore& store_;
  Results results_{};
  std::vector<ChunkFate> fates_;
};

// All layers of a chunk, then the next chunk.
class ChunkMajorReader final : public ReaderBase {
 public:
  using ReaderBase::ReaderBase;

  bool done() const override { return chunk_ == chunks(); }

  uint64_t NextBytes() override {
    if (done()) return 0;
    if (!found_.has_value()) {
      found_ = std::move(Lookup(chunk_, 1).front());
      rest_ = call_.layers;
    }
    if (found_->manifest == nullptr) return 0;
    // What is announced already goes on as it began.
    return announced_ ? EncodedBytesOf(SlabsIn(*found_->manifest, rest_))
                      : recoder_.MostBytes(*found_->manifest, rest_);
  }

  std::vector<FetchItem> Step(uint64_t max_bytes) override {
    std::vector<FetchItem> out;
    if (done()) return out;
    const uint64_t wanted = NextBytes();
    if (found_->miss.reason != MissReason::kNone) {
      TellMiss(chunk_, std::move(found_->miss), out);
      NextChunk();
      return out;
    }
    const LayerRange layers = wanted <= max_bytes ? rest_ : LayersThatFit(max_bytes);
    FetchedChunk fetched = Read(chunk_, layers);
    if (fetched.miss.reason != MissReason::kNone) {
      TellMiss(chunk_, std::move(fetched.miss), out);
      NextChunk();
      return out;
    }
    if (!announced_) {
      if (wanted <= max_bytes) recoded_bytes_ += recoder_.Recode(fetched);
      FetchItem result = HitItem(chunk_, *fetched.manifest, fetched.tier);
      if (result.miss.reason != MissReason::kNone) {
        TellMiss(chunk_, std::move(result.miss), out);
        NextChunk();
        return out;
      }
      out.push_back(std::move(result));
      found_->manifest = fetched.manifest;  // the lookup's may be older
      announced_ = true;
    }
    rest_.begin = layers.end;
    const bool whole = SlabsIn(*found_->manifest, rest_).empty();
    if (!AddSlabs(chunk_, found_->manifest, std::move(fetched), out)) {
      TellMiss(chunk_, Replaced(), out);
      NextChunk();
    } else if (whole) {
      Finished(chunk_, MissReason::kNone);
      NextChunk();
    }
    return out;
  }

 private:
  // The most layers from the front of `rest_` whose slabs fit into `max_bytes`; one at least.
  LayerRange LayersThatFit(uint64_t max_bytes) const {
    LayerRange fit = {.begin = rest_.begin, .end = rest_.begin};
    uint64_t bytes = 0;
    for (const SlabInfo& slab : SlabsIn(*found_->manifest, rest_)) {
      bytes += slab.encoded_size;
      if (bytes > max_bytes && slab.layer >= fit.end && fit.end > fit.begin) break;
      fit.end = slab.layer + 1;
    }
    return fit;
  }

  void NextChunk() {
    ++chunk_;
    found_.reset();
    announced_ = false;
  }

  size_t chunk_ = 0;
  std::optional<FoundChunk> found_;  // the present chunk, once looked up
  bool announced_ = false;
  LayerRange rest_;  // layers of the present chunk that are still to be read
};

// A layer of all chunks, then the next layer.
class LayerMajorReader final : public ReaderBase {
 public:
  LayerMajorReader(TieredStore& store, FetchCall call)
      : ReaderBase(store, std::move(call)), layer_(call_.layers.begin), open_(chunks()) {}

  bool done() const override { return looked_up_ == chunks() && layer_ >= end_; }

  uint64_t NextBytes() override {
    if (done()) return 0;
    if (looked_up_ < chunks()) return BytesToAnnounce();
    const OpenChunk& open = *open_[chunk_];
    return std::max(EncodedBytesOf(SlabsIn(*open.stored, ThisLayer())),
                    EncodedBytesOf(SlabsIn(*open.announced, ThisLayer())));
  }

  std::vector<FetchItem> Step(uint64_t max_bytes) override {
    std::vector<FetchItem> out;
    if (looked_up_ < chunks()) {
      AnnounceSome(max_bytes, out);
      if (looked_up_ == chunks()) SeekOpenChunk();
      return out;
    }
    if (done()) return out;
    FetchedChunk fetched = Read(chunk_, ThisLayer());
    std::optional<OpenChunk>& open = open_[chunk_];
    if (fetched.miss.reason != MissReason::kNone) {
      TellMiss(chunk_, std::move(fetched.miss), out);
      open.reset();
    } else if (!BringToAnnounced(*open, fetched) || !AddSlabs(chunk_, open->announced, std::move(fetched), out)) {
      TellMiss(chunk_, Replaced(), out);
      open.reset();
    } else if (SlabsIn(*open->announced, {.begin = layer_ + 1, .end = call_.layers.end}).empty()) {
      Finished(chunk_, MissReason::kNone);
      open.reset();
    }
    ++chunk_;
    SeekOpenChunk();
    return out;
  }

 private:
  struct OpenChunk {
    ManifestPtr stored;     // what the store has
    ManifestPtr announced;  // what the peer was told: the same, unless slabs are recoded
  };

  LayerRange ThisLayer() const { return {.begin = layer_, .end = layer_ + 1}; }

  // Finds the chunk that is to be announced next, so that it is known what recoding it takes.
  uint64_t BytesToAnnounce() {
    if (!recodes()) return 0;
    if (!next_.has_value()) next_ = std::move(Lookup(looked_up_, 1).front());
    if (next_->miss.reason != MissReason::kNone || !recoder_.Wants(*next_->manifest, call_.layers)) return 0;
    const uint64_t bytes = recoder_.MostBytes(*next_->manifest, call_.layers);
    return WorkOf(*next_->manifest, bytes) <= kMaxRecodedByLayer - planned_bytes_ ? bytes : 0;
  }

  // What of kMaxRecodedByLayer a chunk of so many bytes takes.
  uint64_t WorkOf(const Manifest& manifest, uint64_t bytes) const {
    return recoder_.Codes(manifest, call_.layers) ? bytes : bytes / kCopiedCountsForOneIn;
  }

  // Looks up the next few chunks, one where it may be recoded, and says of each whether it will come.
  void AnnounceSome(uint64_t max_bytes, std::vector<FetchItem>& out) {
    if (recodes()) {
      const uint64_t bytes = BytesToAnnounce();
      FoundChunk found = *std::exchange(next_, std::nullopt);
      const size_t chunk = looked_up_++;
      if (bytes == 0 || bytes > max_bytes) {
        return Announce(chunk, found.miss, found.manifest, found.manifest, found.tier, out);
      }
      FetchedChunk whole = Read(chunk, call_.layers);
      const ManifestPtr stored = whole.manifest;
      recoder_.Recode(whole);
      planned_bytes_ += WorkOf(*found.manifest, bytes);
      return Announce(chunk, whole.miss, stored, whole.manifest, whole.tier, out);
    }
    const size_t n = std::min(kLookupBatch, chunks() - looked_up_);
    for (const FoundChunk& found : Lookup(looked_up_, n)) {
      Announce(looked_up_++, found.miss, found.manifest, found.manifest, found.tier, out);
    }
  }

  void Announce(size_t chunk, const Miss& miss, const ManifestPtr& stored, const ManifestPtr& announced, TierKind tier,
                std::vector<FetchItem>& out) {
    if (miss.reason != MissReason::kNone) return TellMiss(chunk, miss, out);
    slabs_held_ += stored->slabs.size() * (announced == stored ? 1 : 2);
    if (slabs_held_ > kMaxSlabsHeld) {
      return TellMiss(chunk, {MissReason::kRefused, "too many slabs for one LAYER_MAJOR fetch; ask for fewer chunks"},
                      out);
    }
    FetchItem result = HitItem(chunk, *announced, tier);
    if (result.miss.reason != MissReason::kNone) return TellMiss(chunk, std::move(result.miss), out);
    out.push_back(std::move(result));
    const std::span<const SlabInfo> slabs = SlabsIn(*announced, call_.layers);
    if (slabs.empty()) return Finished(chunk, MissReason::kNone);
    end_ = std::max(end_, slabs.back().layer + 1);
    open_[chunk] = {.stored = stored, .announced = announced};
  }

  // Recodes a layer of a chunk as it was for its announcement. False when it is of another chunk, or has become
  // something else.
  bool BringToAnnounced(const OpenChunk& open, FetchedChunk& fetched) {
    if (fetched.manifest != open.stored && *fetched.manifest != *open.stored) return false;
    if (open.announced == open.stored) return true;
    const uint64_t recoded = recoder_.Recode(fetched);
    const bool same = std::ranges::all_of(fetched.slabs, [&](const SlabBytes& slab) {
      return fetched.manifest->slabs[slab.index] == open.announced->slabs[slab.index];
    });
    if (!same) return false;
    recoded_bytes_ += recoded;
    fetched.manifest = open.announced;
    return true;
  }

  // Moves to the next chunk, of this or a later layer, that has slabs there.
  void SeekOpenChunk() {
    for (; layer_ < end_; ++layer_, chunk_ = 0) {
      for (; chunk_ < chunks(); ++chunk_) {
        if (open_[chunk_].has_value() && !SlabsIn(*open_[chunk_]->stored, ThisLayer()).empty()) return;
      }
    }
  }

  size_t looked_up_ = 0;  // chunks from the front that have their result
  uint32_t layer_;
  uint32_t end_ = 0;                            // one beyond the last layer that any chunk has
  size_t chunk_ = 0;                            // of the present layer
  std::vector<std::optional<OpenChunk>> open_;  // by chunk; none when there is nothing more to send of it
  std::optional<FoundChunk> next_;              // to be announced next, once looked up; where slabs may be recoded
  uint64_t planned_bytes_ = 0;                  // of kMaxRecodedByLayer, for chunks that were recoded to be announced
  uint64_t slabs_held_ = 0;
};

}  // namespace

std::unique_ptr<FetchReader> MakeFetchReader(TieredStore& store, FetchCall call) {
  if (call.layer_major) return std::make_unique<LayerMajorReader>(store, std::move(call));
  return std::make_unique<ChunkMajorReader>(store, std::move(call));
}

uint64_t CountFetched(const FetchReader& reader, uint64_t asked, NodeMetrics& metrics) {
  uint64_t unfinished = asked;
  for (size_t reason = 0; reason < kMissReasonCount; ++reason) {
    metrics.Fetched(static_cast<MissReason>(reason), reader.results()[reason]);
    unfinished -= reader.results()[reason];
  }
  if (reader.codec() != nullptr) metrics.Recoded(*reader.codec(), reader.recoded_bytes());
  return unfinished;
}

}  // namespace kdn
