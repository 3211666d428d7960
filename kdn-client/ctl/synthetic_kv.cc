#include "kdn-client/ctl/synthetic_kv.h"

#include <algorithm>
#include <cstring>

#include "storage/base/split_mix.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr uint64_t kElementBytes = 2;                       // bf16
constexpr uint64_t kSlabBytesWished = uint64_t{256} << 10;  // more layers rather than larger slabs
constexpr uint32_t kMaxSyntheticLayers = 64;

}  // namespace

absl::StatusOr<KvSpace> SyntheticSpace(const std::string& model, const std::string& revision, uint32_t chunk_tokens,
                                       uint64_t chunk_bytes) {
  const auto layers =
      static_cast<uint32_t>(std::clamp<uint64_t>(chunk_bytes / (2 * kSlabBytesWished), 1, kMaxSyntheticLayers));
  const uint64_t dim = chunk_bytes / (uint64_t{2} * kElementBytes * layers * std::max(chunk_tokens, 1U));
  if (dim == 0 || dim > kMaxHeadDim) {
    return InvalidArgument("chunks of {} tokens cannot take {} bytes; give {} to {}", chunk_tokens, chunk_bytes,
                           2 * kElementBytes * chunk_tokens,
                           uint64_t{2} * kElementBytes * chunk_tokens * kMaxHeadDim * layers);
  }
  KvSpace space;
  space.model_id = model;
  space.weights_revision = revision;
  space.dtype = DType::kBf16;
  space.chunk_tokens = chunk_tokens;
  space.layers = {{.count = layers,
                   .kv_heads = 1,
                   .k_dim = static_cast<uint32_t>(dim),
                   .v_dim = static_cast<uint32_t>(dim),
                   .rope = {}}};
  KDN_RETURN_IF_ERROR(ValidateSpace(space));
  return space;
}

SyntheticKv::SyntheticKv(const KvSpace& space, uint32_t chunks) : chunks_(chunks) {
  const LayerRun& run = space.layers.front();
  slab_bytes_ = uint64_t{space.chunk_tokens} * run.k_dim * kElementBytes;
  chunk_bytes_ = 2 * slab_bytes_ * run.count;
  slabs_.assign(size_t{2} * run.count, std::vector<uint8_t>(slab_bytes_ * chunks));
  view_.capacity_tokens = space.chunk_tokens * chunks;
  for (size_t i = 0; i < slabs_.size(); ++i) (i % 2 == 0 ? view_.k : view_.v).push_back(slabs_[i].data());
}

template <typename Visit>
bool SyntheticKv::ForEachWord(uint32_t at, uint64_t seed, Visit visit) const {
  uint64_t state = Mix64(seed + 1);  // as good as random for codecs, at the speed of memory
  for (size_t slab = 0; slab < slabs_.size(); ++slab) {
    const uint64_t begin = at * slab_bytes_;
    for (uint64_t byte = 0; byte < slab_bytes_; byte += sizeof(uint64_t)) {
      const uint64_t word = SplitMix64(state);
      if (!visit(slab, begin + byte, std::min<uint64_t>(sizeof word, slab_bytes_ - byte), word)) return false;
    }
  }
  return true;
}

void SyntheticKv::Fill(uint32_t at, uint64_t seed) {
  ForEachWord(at, seed, [this](size_t slab, uint64_t offset, uint64_t size, uint64_t word) {
    std::memcpy(slabs_[slab].data() + offset, &word, size);
    return true;
  });
}

bool SyntheticKv::Matches(uint32_t at, uint64_t seed) const {
  return ForEachWord(at, seed, [this](size_t slab, uint64_t offset, uint64_t size, uint64_t word) {
    return std::memcmp(slabs_[slab].data() + offset, &word, size) == 0;
  });
}

}  // namespace kdn::ctl
