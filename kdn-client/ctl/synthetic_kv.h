// SyntheticKv: KV made on the fly, for measuring and for replaying traces: a space of any chunk size, and the bytes of
// each of its chunks, which follow from a seed alone.
//
//   KDN_ASSIGN_OR_RETURN(const KvSpace space, SyntheticSpace("kdn/bench", "1", 256, 1 << 20));
//   SyntheticKv kv(space, 16);                    // room for 16 chunks
//   kv.Fill(0, seed);
//   client->Store({&chunk, 1}, kv.view(), {});
//
// Thread-safety: a SyntheticKv is for one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_SYNTHETIC_KV_H_
#define KDN_KDN_CLIENT_CTL_SYNTHETIC_KV_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kdn-client/kv_layout.h"
#include "storage/format/kv_space.h"

namespace kdn::ctl {

// A space whose chunks of `chunk_tokens` tokens take `chunk_bytes` raw, rounded down to what a geometry allows.
// INVALID_ARGUMENT: less than 4 bytes a token, or more than a space can have.
absl::StatusOr<KvSpace> SyntheticSpace(const std::string& model, const std::string& revision, uint32_t chunk_tokens,
                                       uint64_t chunk_bytes);

class SyntheticKv {
 public:
  // Of a space that SyntheticSpace made.
  SyntheticKv(const KvSpace& space, uint32_t chunks);

  const ContiguousKv& view() const { return view_; }
  uint32_t capacity() const { return chunks_; }
  uint64_t chunk_bytes() const { return chunk_bytes_; }

  // The bytes of the chunk that lies at place `at`.
  void Fill(uint32_t at, uint64_t seed);
  // Whether they are there.
  bool Matches(uint32_t at, uint64_t seed) const;

 private:
  template <typename Visit>
  bool ForEachWord(uint32_t at, uint64_t seed, Visit visit) const;

  const uint32_t chunks_;
  uint64_t slab_bytes_ = 0;
  uint64_t chunk_bytes_ = 0;
  std::vector<std::vector<uint8_t>> slabs_;
  ContiguousKv view_;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_SYNTHETIC_KV_H_
