// ChunkMaker: chunks for benchmarks of storage, of one geometry, that share their bytes and differ in their keys.
//
// Thread-safety: Make may be called from any thread.
#ifndef KDN_BENCH_CHUNK_MAKER_H_
#define KDN_BENCH_CHUNK_MAKER_H_

#include <cstdint>
#include <vector>

#include "storage/chunk.h"

namespace kdn::bench {

class ChunkMaker {
 public:
  // `layers` layers of K and V, raw, of random bytes.
  ChunkMaker(uint32_t layers, SlabShape shape);

  // The first chunk of segment `number`.
  Chunk Make(uint64_t number) const;
  static ChunkKey KeyOf(uint64_t number);
  uint64_t bytes() const { return slabs_.size() * shape_.RawSize(); }  // of a chunk

 private:
  const SlabShape shape_;
  std::vector<SharedBuffer> slabs_;
  std::vector<SlabInfo> infos_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_CHUNK_MAKER_H_
