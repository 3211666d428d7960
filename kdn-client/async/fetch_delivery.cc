#include "kdn-client/async/fetch_delivery.h"

#include <algorithm>

namespace kdn {

FetchDelivery::FetchDelivery(size_t chunks, LayerRange layers, SlabSink& sink)
    : layers_(layers), sink_(&sink), progress_(chunks) {}

bool FetchDelivery::OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) {
  MutexLock lock(mu_);
  if (sink_ == nullptr) return false;
  Progress& progress = progress_[chunk];
  if (progress.over) return false;
  if (progress.manifest != nullptr) {
    if (SameRest(progress, *manifest)) return true;
    progress.over = true;
    sink_->OnMiss(chunk, {MissReason::kInternal, "it broke off, and the next replica holds it in another encoding"});
    return false;
  }
  if (!sink_->OnChunk(chunk, manifest, tier)) {
    progress.over = true;
    return false;
  }
  progress.manifest = manifest;
  SeekSlab(progress);
  return true;
}

void FetchDelivery::OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
  MutexLock lock(mu_);
  if (sink_ == nullptr) return;
  Progress& progress = progress_[chunk];
  if (progress.over || progress.manifest == nullptr || slab < progress.slab) return;
  if (slab == progress.slab && offset < progress.offset) {
    const uint64_t known = progress.offset - offset;
    if (known >= part.size()) return;
    part = part.subspan(known);
    offset = progress.offset;
  }
  sink_->OnPart(chunk, slab, offset, part);
  // What breaks the protocol is the sink's to refuse; it is no progress.
  if (slab != progress.slab || offset != progress.offset) return;
  progress.offset += part.size();
  if (progress.offset < progress.manifest->slabs[slab].encoded_size) return;
  ++progress.slab;
  progress.offset = 0;
  SeekSlab(progress);
}

void FetchDelivery::OnMiss(size_t chunk, const Miss& miss) {
  MutexLock lock(mu_);
  if (sink_ == nullptr || progress_[chunk].over) return;
  progress_[chunk].over = true;
  sink_->OnMiss(chunk, miss);
}

FetchDelivery::Rest FetchDelivery::Wanted() {
  MutexLock lock(mu_);
  const auto layer_of = [&](const Progress& progress) {
    return progress.manifest == nullptr ? layers_.begin : progress.manifest->slabs[progress.slab].layer;
  };
  Rest rest = {.chunks = {}, .layers = {.begin = layers_.end, .end = layers_.end}};
  for (size_t i = 0; i < progress_.size(); ++i) {
    const Progress& progress = progress_[i];
    if (progress.over) continue;
    if (progress.offset > 0) return {.chunks = {i}, .layers = {.begin = layer_of(progress), .end = layers_.end}};
    rest.chunks.push_back(i);
    rest.layers.begin = std::min(rest.layers.begin, layer_of(progress));
  }
  return rest;
}

void FetchDelivery::Close() {
  MutexLock lock(mu_);
  sink_ = nullptr;
}

// What has come already may be told of otherwise: a node describes only the layers that it is asked for as it sends
// them.
bool FetchDelivery::SameRest(const Progress& progress, const Manifest& manifest) const {
  Manifest same = *progress.manifest;
  if (same.slabs.size() != manifest.slabs.size()) return false;
  for (uint32_t i = 0; i < same.slabs.size(); ++i) {
    if (i < progress.slab || !layers_.Contains(same.slabs[i].layer)) same.slabs[i] = manifest.slabs[i];
  }
  return same == manifest;
}

// Moves on to the next slab of a layer that was asked for, this one included.
void FetchDelivery::SeekSlab(Progress& progress) const {
  const std::vector<SlabInfo>& slabs = progress.manifest->slabs;
  while (progress.slab < slabs.size() && !layers_.Contains(slabs[progress.slab].layer)) ++progress.slab;
  progress.over = progress.slab == slabs.size();
}

}  // namespace kdn
