#include "storage/delivery_recode.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "storage/base/status.h"
#include "storage/recode.h"

namespace kdn {
namespace {

absl::Status DecodeToRaw(SlabInfo& slab, SharedBuffer& bytes) {
  KDN_ASSIGN_OR_RETURN(const Codec* const present, FindCodec(slab.codec));
  Buffer raw(slab.shape.RawSize());
  KDN_RETURN_IF_ERROR(present->Decode(slab.shape, slab.kind, bytes, raw.span()));
  slab.codec = CodecId::kRaw;
  slab.encoded_size = raw.size();
  slab.checksum = SlabChecksum(raw.span());
  bytes = std::move(raw).Freeze();
  return absl::OkStatus();
}

}  // namespace

DeliveryRecoder::DeliveryRecoder(const Codec* wished, Fidelity least)
    : wished_(wished != nullptr && wished->fidelity() >= least ? wished : nullptr) {}

bool DeliveryRecoder::Wants(const SlabInfo& slab) const {
  if (wished_ == nullptr || slab.codec == wished_->id()) return false;
  const absl::StatusOr<const Codec*> present = FindCodec(slab.codec);
  return present.ok() && (*present)->fidelity() == Fidelity::kExact;
}

bool DeliveryRecoder::Wants(const Manifest& manifest, LayerRange layers) const {
  return std::ranges::any_of(manifest.slabs,
                             [&](const SlabInfo& slab) { return layers.Contains(slab.layer) && Wants(slab); });
}

uint64_t DeliveryRecoder::MostBytes(const Manifest& manifest, LayerRange layers) const {
  uint64_t bytes = 0;
  for (const SlabInfo& slab : manifest.slabs) {
    if (!layers.Contains(slab.layer)) continue;
    const bool grows = Wants(slab) && wished_->id() == CodecId::kRaw;
    bytes += grows ? std::max(slab.encoded_size, slab.shape.RawSize()) : slab.encoded_size;
  }
  return bytes;
}

uint64_t DeliveryRecoder::Recode(FetchedChunk& fetched) const {
  if (wished_ == nullptr || fetched.manifest == nullptr) return 0;
  const bool exact = wished_->fidelity() == Fidelity::kExact;
  if (!exact && !fetched.retention.lossy_allowed) return 0;
  auto manifest = std::make_shared<Manifest>(*fetched.manifest);
  const uint32_t layer_count = manifest->slabs.back().layer + 1;
  uint64_t recoded = 0;
  for (SlabBytes& slab : fetched.slabs) {
    SlabInfo& info = manifest->slabs[slab.index];
    if (!Wants(info) || !VerifySlab(*fetched.manifest, slab.index, slab.bytes).ok()) continue;
    const EncodeHints hints = {.layer = info.layer, .layer_count = layer_count, .first_token = manifest->first_token};
    const absl::Status done =
        wished_->id() == CodecId::kRaw ? DecodeToRaw(info, slab.bytes) : RecodeSlab(*wished_, hints, info, slab.bytes);
    if (done.ok() && info.codec == wished_->id()) recoded += info.encoded_size;
  }
  if (recoded == 0) return 0;
  manifest->fidelity = std::min(manifest->fidelity, wished_->fidelity());
  fetched.manifest = std::move(manifest);
  return recoded;
}

}  // namespace kdn
