// FetchReader: walks the chunks of a Fetch in the order asked for and reads them from the store, a step at a time, so
// that whoever sends them decides how far to read ahead.
//
//   std::unique_ptr<FetchReader> reader = MakeFetchReader(store, call);
//   while (!reader->done()) {
//     for (FetchItem& item : reader->Step(/*max_bytes=*/reader->NextBytes())) Send(item);
//   }
//
// Where the call wishes for a codec or for some heads only, slabs are recoded to it or cut to them
// (storage/delivery_recode.h) and the manifest tells of them; below, "recoded" is said of both. A manifest has all
// checksums, so a chunk is recoded whole before anything of it is handed out. LAYER_MAJOR, which would have to keep all
// chunks, recodes them a second time, layer by layer, and so holds no more than it does otherwise; after 1 GiB of
// chunks it leaves the rest as they are stored, or after 8 GiB where no codec has to do with it.
//
// Every chunk gets exactly one result before its slabs, and a second one, with the reason, if reading fails midway.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_FETCH_READER_H_
#define KDN_KDN_NODE_FETCH_READER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kdn-node/metrics.h"
#include "kdn-node/wire_convert.h"
#include "storage/analytics/recorder.h"
#include "storage/base/buffer.h"
#include "storage/chunk.h"
#include "storage/tiered_store.h"

namespace kdn {

// Either a chunk's result or a slab.
struct FetchItem {
  uint32_t chunk = 0;
  bool is_result = false;

  // Of a result.
  Miss miss = {};
  TierKind tier = TierKind::kNone;
  std::string manifest = {};  // canonical bytes; empty on a miss

  // Of a slab.
  uint32_t slab = 0;
  SharedBuffer bytes = {};  // encoded
};

class FetchReader {
 public:
  using Results = std::array<uint64_t, kMissReasonCount>;

  virtual ~FetchReader() = default;

  virtual bool done() const = 0;

  // How many slab bytes the next step would hold at most, those that it recodes included; 0 when it only answers. May
  // wait for a disk.
  virtual uint64_t NextBytes() = 0;

  // Reads on. At most `max_bytes`, or a single layer of one chunk where that is more. May wait for a disk, and recode
  // one chunk; a chunk for which `max_bytes` are too few is handed out as it is stored.
  virtual std::vector<FetchItem> Step(uint64_t max_bytes) = 0;

  // Whether slabs may be recoded.
  virtual bool recodes() const = 0;

  // The codec that was wished for, null for none, and the bytes of slabs that were recoded to it and handed out.
  virtual const Codec* codec() const = 0;
  virtual uint64_t recoded_bytes() const = 0;

  // Chunks that are finished, by what became of them; [0] counts those that were delivered to the end.
  virtual const Results& results() const = 0;

  virtual const FetchCall& call() const = 0;
  // What became of each chunk of the call, in its order; those that are not finished are missed by `unfinished`.
  virtual std::vector<AskedChunk> Asked(MissReason unfinished) const = 0;
};

// A reader in the order that `call` asks for. `store` outlives it.
std::unique_ptr<FetchReader> MakeFetchReader(TieredStore& store, FetchCall call);

// Counts what became of the `asked` chunks of a fetch that is over, and what was recoded; returns how many of them are
// not finished. What was read and not sent counts as read.
uint64_t CountFetched(const FetchReader& reader, uint64_t asked, NodeMetrics& metrics);

}  // namespace kdn

#endif  // KDN_KDN_NODE_FETCH_READER_H_
