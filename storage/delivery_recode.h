// DeliveryRecoder: the slabs that a fetch has read, with the heads that it asks for, in the codec that it wishes for.
// What is stored stays as it is, and what is derived from it is for this delivery alone: it must not be stored.
//
//   const DeliveryRecoder recoder(wished, least, heads);
//   FetchedChunk fetched = store.Fetch(space, key, layers, least);
//   uint64_t recoded = recoder.Recode(fetched);  // manifest and slabs are those to be delivered now
//
// A slab is brought to the wished codec where that makes it smaller, or to raw whatever it grows to. It stays as it is
// stored where it is lossy already, where a lossy codec is wished that the request or whoever stored the chunk does not
// allow, and where recoding fails.
//
// The heads are cut out of slabs whose codec is exact; the manifest then tells of slabs of so many heads. A slab that
// is stored raw is cut as it is. One that is encoded is decoded for it, and encoded again only by the codec that is
// wished for: to encode costs the most, and what is left out saves more than it would. So without a wish the heads
// travel raw, unless that is more than the whole slab as it is stored. A slab stays whole where its codec is lossy,
// where the range is none of its heads, and where cutting fails.
//
// Bytes are verified before they are recoded or cut, so that damage never gets a checksum of its own: a damaged slab
// travels as it is, and is refused by whoever gets it.
//
// Thread-safety: const methods may be called from any thread.
#ifndef KDN_STORAGE_DELIVERY_RECODE_H_
#define KDN_STORAGE_DELIVERY_RECODE_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "storage/base/buffer.h"
#include "storage/chunk.h"
#include "storage/format/codec.h"
#include "storage/tiered_store.h"

namespace kdn {

class DeliveryRecoder {
 public:
  // `wished` null: everything as it is stored. `least`: what the request accepts. `memory`: where raw heads that were
  // cut out are put; null: on the heap.
  DeliveryRecoder(const Codec* wished, Fidelity least, HeadRange heads = {},
                  std::shared_ptr<BufferMemory> memory = nullptr);

  // Whether anything might change at all.
  bool MayChange() const { return wished_ != nullptr || heads_ != HeadRange(); }
  // Whether slabs of `layers` might change. Those of chunks whose storer forbids a lossy codec do not after all.
  bool Wants(const Manifest& manifest, LayerRange layers) const;
  // The most bytes that the slabs of `layers` have, before or after.
  uint64_t MostBytes(const Manifest& manifest, LayerRange layers) const;
  // Whether slabs of `layers` might have to be decoded or encoded, which takes longer than to copy heads.
  bool Codes(const Manifest& manifest, LayerRange layers) const;

  // Recodes and cuts the slabs that `fetched` has; its manifest then tells of them, and of the others as they are
  // stored. Returns the encoded bytes of those that were recoded to the codec that was wished for.
  uint64_t Recode(FetchedChunk& fetched) const;

 private:
  bool Wants(const SlabInfo& slab) const { return Recodes(wished_, slab) || HeadsToCut(slab).has_value(); }
  // Whether a wish for `wished` concerns the slab.
  static bool Recodes(const Codec* wished, const SlabInfo& slab);
  // The heads that are to be cut out of the slab; nothing when it stays whole.
  std::optional<HeadRange> HeadsToCut(const SlabInfo& slab) const;
  // Cuts `heads` out of a slab that is verified; both stay as they are where that brings nothing.
  absl::Status Cut(HeadRange heads, const Codec* wished, const EncodeHints& hints, SlabInfo& slab,
                   SharedBuffer& bytes) const;

  const Codec* const wished_;
  const HeadRange heads_;
  const std::shared_ptr<BufferMemory> memory_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_DELIVERY_RECODE_H_
