#include "storage/delivery_recode.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "storage/base/status.h"
#include "storage/recode.h"

namespace kdn {
namespace {

absl::StatusOr<Buffer> Decoded(const SlabInfo& slab, ByteSpan bytes) {
  KDN_ASSIGN_OR_RETURN(const Codec* const present, FindCodec(slab.codec));
  Buffer raw(slab.shape.RawSize());
  KDN_RETURN_IF_ERROR(present->Decode(slab.shape, slab.kind, bytes, raw.span()));
  return raw;
}

void SetRaw(Buffer raw, SlabInfo& slab, SharedBuffer& bytes) {
  slab.codec = CodecId::kRaw;
  slab.encoded_size = raw.size();
  slab.checksum = SlabChecksum(raw.span());
  bytes = std::move(raw).Freeze();
}

absl::Status DecodeToRaw(SlabInfo& slab, SharedBuffer& bytes) {
  KDN_ASSIGN_OR_RETURN(Buffer raw, Decoded(slab, bytes));
  SetRaw(std::move(raw), slab, bytes);
  return absl::OkStatus();
}

// Copies `heads` of each token of `raw`, which has the shape `whole`, to `cut`.
void CopyHeads(const SlabShape& whole, HeadRange heads, const uint8_t* raw, uint8_t* cut) {
  const uint64_t head = whole.dim * DTypeSize(whole.dtype);
  const uint64_t held = heads.Count() * head;
  for (uint64_t token = 0; token < whole.tokens; ++token) {
    std::memcpy(cut + token * held, raw + (token * whole.heads + heads.begin) * head, held);
  }
}

}  // namespace

DeliveryRecoder::DeliveryRecoder(const Codec* wished, Fidelity least, HeadRange heads,
                                 std::shared_ptr<BufferMemory> memory)
    : wished_(wished != nullptr && wished->fidelity() >= least ? wished : nullptr),
      heads_(heads),
      memory_(std::move(memory)) {}

bool DeliveryRecoder::Recodes(const Codec* wished, const SlabInfo& slab) {
  if (wished == nullptr || slab.codec == wished->id()) return false;
  const absl::StatusOr<const Codec*> present = FindCodec(slab.codec);
  return present.ok() && (*present)->fidelity() == Fidelity::kExact;
}

std::optional<HeadRange> DeliveryRecoder::HeadsToCut(const SlabInfo& slab) const {
  if (heads_ == HeadRange()) return std::nullopt;
  const std::optional<HeadRange> heads = heads_.Of(slab.shape.heads);
  if (!heads.has_value() || heads->Count() == slab.shape.heads) return std::nullopt;
  const absl::StatusOr<const Codec*> present = FindCodec(slab.codec);
  if (!present.ok() || (*present)->fidelity() != Fidelity::kExact) return std::nullopt;
  return heads;
}

bool DeliveryRecoder::Wants(const Manifest& manifest, LayerRange layers) const {
  return std::ranges::any_of(manifest.slabs,
                             [&](const SlabInfo& slab) { return layers.Contains(slab.layer) && Wants(slab); });
}

bool DeliveryRecoder::Codes(const Manifest& manifest, LayerRange layers) const {
  return std::ranges::any_of(manifest.slabs, [&](const SlabInfo& slab) {
    return layers.Contains(slab.layer) && Wants(slab) && (Recodes(wished_, slab) || slab.codec != CodecId::kRaw);
  });
}

uint64_t DeliveryRecoder::MostBytes(const Manifest& manifest, LayerRange layers) const {
  uint64_t bytes = 0;
  for (const SlabInfo& slab : manifest.slabs) {
    if (!layers.Contains(slab.layer)) continue;
    const bool grows = Recodes(wished_, slab) && wished_->id() == CodecId::kRaw;
    bytes += grows ? std::max(slab.encoded_size, slab.shape.RawSize()) : slab.encoded_size;
  }
  return bytes;
}

absl::Status DeliveryRecoder::Cut(HeadRange heads, const Codec* wished, const EncodeHints& hints, SlabInfo& slab,
                                  SharedBuffer& bytes) const {
  SlabInfo cut = slab;
  cut.shape.heads = heads.Count();
  Buffer held(cut.shape.RawSize(), memory_);
  if (slab.codec == CodecId::kRaw) {
    CopyHeads(slab.shape, heads, bytes.data(), held.data());
  } else {
    KDN_ASSIGN_OR_RETURN(const Buffer raw, Decoded(slab, bytes));
    CopyHeads(slab.shape, heads, raw.data(), held.data());
  }
  SharedBuffer cut_bytes;
  SetRaw(std::move(held), cut, cut_bytes);
  if (wished != nullptr) KDN_RETURN_IF_ERROR(RecodeSlab(*wished, hints, cut, cut_bytes));
  const bool wants_raw = wished != nullptr && wished->id() == CodecId::kRaw;
  if (cut.encoded_size >= slab.encoded_size && !wants_raw) return absl::OkStatus();
  slab = cut;
  bytes = std::move(cut_bytes);
  return absl::OkStatus();
}

uint64_t DeliveryRecoder::Recode(FetchedChunk& fetched) const {
  if (!MayChange() || fetched.manifest == nullptr) return 0;
  const bool allowed =
      wished_ != nullptr && (wished_->fidelity() == Fidelity::kExact || fetched.retention.lossy_allowed);
  const Codec* const wished = allowed ? wished_ : nullptr;
  auto manifest = std::make_shared<Manifest>(*fetched.manifest);
  const uint32_t layer_count = manifest->slabs.back().layer + 1;
  bool changed = false;
  uint64_t recoded = 0;
  for (SlabBytes& slab : fetched.slabs) {
    SlabInfo& info = manifest->slabs[slab.index];
    const bool recodes = Recodes(wished, info);
    const std::optional<HeadRange> heads = HeadsToCut(info);
    if (!recodes && !heads.has_value()) continue;
    if (!VerifySlab(*fetched.manifest, slab.index, slab.bytes).ok()) continue;
    const EncodeHints hints = {.layer = info.layer, .layer_count = layer_count, .first_token = manifest->first_token};
    absl::Status done;
    if (heads.has_value()) {
      done = Cut(*heads, wished, hints, info, slab.bytes);
    } else if (wished->id() == CodecId::kRaw) {
      done = DecodeToRaw(info, slab.bytes);
    } else {
      done = RecodeSlab(*wished, hints, info, slab.bytes);
    }
    if (!done.ok()) continue;
    changed |= info != fetched.manifest->slabs[slab.index];
    if (recodes && info.codec == wished->id()) recoded += info.encoded_size;
  }
  if (!changed) return 0;
  if (recoded > 0) manifest->fidelity = std::min(manifest->fidelity, wished->fidelity());
  fetched.manifest = std::move(manifest);
  return recoded;
}

}  // namespace kdn
