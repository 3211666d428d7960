// DeliveryRecoder: the slabs that a fetch has read, in the codec that it wishes for. What is stored stays as it is.
//
//   const DeliveryRecoder recoder(wished, least);
//   FetchedChunk fetched = store.Fetch(space, key, layers, least);
//   uint64_t recoded = recoder.Recode(fetched);  // manifest and slabs are those to be delivered now
//
// A slab is brought to the wished codec where that makes it smaller, or to raw whatever it grows to. It stays as it is
// stored where it is lossy already, where a lossy codec is wished that the request or whoever stored the chunk does not
// allow, and where recoding fails. Bytes are verified before they are recoded, so that damage never gets a checksum of
// its own: a damaged slab travels as it is, and is refused by whoever gets it.
//
// Thread-safety: const methods may be called from any thread.
#ifndef KDN_STORAGE_DELIVERY_RECODE_H_
#define KDN_STORAGE_DELIVERY_RECODE_H_

#include <cstdint>

#include "storage/chunk.h"
#include "storage/format/codec.h"
#include "storage/tiered_store.h"

namespace kdn {

class DeliveryRecoder {
 public:
  // `wished` null: everything as it is stored. `least`: what the request accepts.
  DeliveryRecoder(const Codec* wished, Fidelity least);

  // Whether slabs of `layers` might change. Those of chunks whose storer forbids a lossy codec do not after all.
  bool Wants(const Manifest& manifest, LayerRange layers) const;
  // The most bytes that the slabs of `layers` have, before or after.
  uint64_t MostBytes(const Manifest& manifest, LayerRange layers) const;

  // Recodes the slabs that `fetched` has; its manifest then tells of them, and of the others as they are stored.
  // Returns the encoded bytes of those that were recoded.
  uint64_t Recode(FetchedChunk& fetched) const;

 private:
  bool Wants(const SlabInfo& slab) const;

  const Codec* const wished_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_DELIVERY_RECODE_H_
