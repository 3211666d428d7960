#include "kdn-node/fetch_reader.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

// LAYER_MAJOR keeps the manifests of all chunks until the end; so many slabs in them (about 50 MB) serve 4,096 chunks
// of a model of 128 layers.
constexpr uint64_t kMaxSlabsHeld = uint64_t{1} << 20;
// Keys that LAYER_MAJOR looks up in one step.
constexpr size_t kLookupBatch = 64;

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
  ReaderBase(TieredStore& store, FetchCall call) : call_(std::move(call)), store_(store) {}

  const Results& results() const override { return results_; }

 protected:
  size_t chunks() const { return call_.what.keys.size(); }

  std::vector<FoundChunk> Lookup(size_t first, size_t n) {
    return store_.Lookup(call_.what.space, std::span(call_.what.keys).subspan(first, n), call_.least);
  }

  FetchedChunk Read(size_t chunk, LayerRange layers) {
    return store_.Fetch(call_.what.space, call_.what.keys[chunk], layers, call_.least);
  }

  // The chunk is finished, and `miss` is what the peer is told.
  void TellMiss(size_t chunk, Miss miss, std::vector<FetchItem>& out) {
    Finished(miss.reason);
    out.push_back(MissItem(chunk, std::move(miss)));
  }

  void Finished(MissReason result) { ++results_[static_cast<size_t>(result)]; }

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

 private:
  TieredStore& store_;
  Results results_{};
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
    return found_->manifest == nullptr ? 0 : EncodedBytesOf(SlabsIn(*found_->manifest, rest_));
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
      Finished(MissReason::kNone);
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
    if (looked_up_ < chunks() || done()) return 0;
    return EncodedBytesOf(SlabsIn(*open_[chunk_], ThisLayer()));
  }

  std::vector<FetchItem> Step(uint64_t) override {
    std::vector<FetchItem> out;
    if (looked_up_ < chunks()) {
      AnnounceSome(out);
      if (looked_up_ == chunks()) SeekOpenChunk();
      return out;
    }
    if (done()) return out;
    FetchedChunk fetched = Read(chunk_, ThisLayer());
    ManifestPtr& manifest = open_[chunk_];
    if (fetched.miss.reason != MissReason::kNone) {
      TellMiss(chunk_, std::move(fetched.miss), out);
      manifest.reset();
    } else if (!AddSlabs(chunk_, manifest, std::move(fetched), out)) {
      TellMiss(chunk_, Replaced(), out);
      manifest.reset();
    } else if (SlabsIn(*manifest, {.begin = layer_ + 1, .end = call_.layers.end}).empty()) {
      Finished(MissReason::kNone);
      manifest.reset();
    }
    ++chunk_;
    SeekOpenChunk();
    return out;
  }

 private:
  LayerRange ThisLayer() const { return {.begin = layer_, .end = layer_ + 1}; }

  // Looks up the next few chunks and says of each whether it will come.
  void AnnounceSome(std::vector<FetchItem>& out) {
    const size_t n = std::min(kLookupBatch, chunks() - looked_up_);
    for (FoundChunk& found : Lookup(looked_up_, n)) {
      Announce(looked_up_++, std::move(found), out);
    }
  }

  void Announce(size_t chunk, FoundChunk found, std::vector<FetchItem>& out) {
    if (found.miss.reason != MissReason::kNone) return TellMiss(chunk, std::move(found.miss), out);
    slabs_held_ += found.manifest->slabs.size();
    if (slabs_held_ > kMaxSlabsHeld) {
      return TellMiss(chunk, {MissReason::kRefused, "too many slabs for one LAYER_MAJOR fetch; ask for fewer chunks"},
                      out);
    }
    FetchItem result = HitItem(chunk, *found.manifest, found.tier);
    if (result.miss.reason != MissReason::kNone) return TellMiss(chunk, std::move(result.miss), out);
    out.push_back(std::move(result));
    const std::span<const SlabInfo> slabs = SlabsIn(*found.manifest, call_.layers);
    if (slabs.empty()) return Finished(MissReason::kNone);
    end_ = std::max(end_, slabs.back().layer + 1);
    open_[chunk] = std::move(found.manifest);
  }

  // Moves to the next chunk, of this or a later layer, that has slabs there.
  void SeekOpenChunk() {
    for (; layer_ < end_; ++layer_, chunk_ = 0) {
      for (; chunk_ < chunks(); ++chunk_) {
        if (open_[chunk_] != nullptr && !SlabsIn(*open_[chunk_], ThisLayer()).empty()) return;
      }
    }
  }

  size_t looked_up_ = 0;  // chunks from the front that have their result
  uint32_t layer_;
  uint32_t end_ = 0;               // one beyond the last layer that any chunk has
  size_t chunk_ = 0;               // of the present layer
  std::vector<ManifestPtr> open_;  // by chunk; null when there is nothing more to send of it
  uint64_t slabs_held_ = 0;
};

}  // namespace

std::unique_ptr<FetchReader> MakeFetchReader(TieredStore& store, FetchCall call) {
  if (call.layer_major) return std::make_unique<LayerMajorReader>(store, std::move(call));
  return std::make_unique<ChunkMajorReader>(store, std::move(call));
}

}  // namespace kdn
