#include "bench/network_data.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <utility>

#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr uint32_t kChunkTokens = 256;
constexpr uint64_t kChunkBytes = uint64_t{16} << 20;

}  // namespace

absl::StatusOr<Dataset> Dataset::Create(const std::string& name, uint64_t slab_bytes, uint64_t total_bytes) {
  if (slab_bytes < 4096 || !std::has_single_bit(slab_bytes)) {
    return InvalidArgument("slabs of {} bytes: give a power of two from 4 KiB", slab_bytes);
  }
  const uint64_t row_values = slab_bytes / (uint64_t{2} * kChunkTokens);
  const uint64_t heads = std::clamp<uint64_t>(row_values / 128, 1, 64);
  const uint64_t layers = std::clamp<uint64_t>(kChunkBytes / slab_bytes, 1, 32);
  Dataset data;
  data.slab_bytes_ = slab_bytes;
  data.space_.model_id = "bench/" + name;
  data.space_.weights_revision = std::to_string(slab_bytes);
  data.space_.chunk_tokens = kChunkTokens;
  data.space_.layers = {{.count = static_cast<uint32_t>(layers),
                         .kv_heads = static_cast<uint32_t>(heads),
                         .k_dim = static_cast<uint32_t>(row_values / heads),
                         .v_dim = 0,
                         .stored = StoredKind::kKOnly,
                         .rope = {}}};
  KDN_ASSIGN_OR_RETURN(data.space_id_, ComputeSpaceId(data.space_));
  const std::vector<Token> tokens(std::max<uint64_t>(total_bytes / (slab_bytes * layers), 1) * kChunkTokens);
  KDN_ASSIGN_OR_RETURN(data.chunks_, ChunkChain(data.space_id_, kChunkTokens, tokens));
  return data;
}

std::vector<ChunkKey> Dataset::Keys() const {
  std::vector<ChunkKey> keys;
  keys.reserve(chunks_.size());
  for (const ChunkRef& chunk : chunks_) keys.push_back(chunk.key);
  return keys;
}

LayerRange Dataset::LayerOf(uint64_t slab) const {
  const auto layer = static_cast<uint32_t>(slab % layers());
  return {.begin = layer, .end = layer + 1};
}

EngineMemory::EngineMemory(const Dataset& data) : slab_bytes_(data.slab_bytes()) {
  for (uint32_t i = 0; i < data.layers(); ++i) layers_.emplace_back(data.chunks().size() * slab_bytes_);
  view_.capacity_tokens = static_cast<uint32_t>(data.chunks().size()) * kChunkTokens;
  view_.v.resize(data.layers());
  for (std::vector<uint8_t>& layer : layers_) view_.k.push_back(layer.data());
}

void EngineMemory::FillWithZeros() {
  for (std::vector<uint8_t>& layer : layers_) std::ranges::fill(layer, uint8_t{0});
}

void EngineMemory::FillWithNoise() {
  std::mt19937_64 random(1);
  for (std::vector<uint8_t>& layer : layers_) {
    for (size_t i = 0; i < layer.size(); i += sizeof(uint64_t)) {
      const uint64_t value = random();
      std::memcpy(layer.data() + i, &value, sizeof value);
    }
  }
}

void EngineMemory::FillWithNormalValues() {
  // Each slab takes its values from another place of one long sequence.
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(std::max<size_t>(slab_bytes_, size_t{1} << 20));
  for (uint16_t& value : values) value = static_cast<uint16_t>(std::bit_cast<uint32_t>(normal(random)) >> 16);
  std::uniform_int_distribution<size_t> any(0, values.size() - slab_bytes_ / 2);
  for (std::vector<uint8_t>& layer : layers_) {
    for (size_t at = 0; at < layer.size(); at += slab_bytes_) {
      std::memcpy(layer.data() + at, values.data() + any(random), slab_bytes_);
    }
  }
}

std::span<uint8_t> EngineMemory::Slab(uint64_t index) {
  return std::span(layers_[index % layers_.size()]).subspan(index / layers_.size() * slab_bytes_, slab_bytes_);
}

std::span<const uint8_t> EngineMemory::Slab(uint64_t index) const {
  return std::span(layers_[index % layers_.size()]).subspan(index / layers_.size() * slab_bytes_, slab_bytes_);
}

absl::StatusOr<uint64_t> StoreAll(Client& client, const Dataset& data, const EngineMemory& source,
                                  const std::string& codec) {
  KDN_ASSIGN_OR_RETURN(const StoreReport report,
                       client.Store(data.chunks(), source.view(), {.deadline = kCallDeadline, .codec = codec}));
  for (const absl::Status& status : report.chunks) KDN_RETURN_IF_ERROR(status);
  if (report.chunks.size() == data.chunks().size()) return report.encoded_bytes;
  return Internal("{} of {} chunks have an answer", report.chunks.size(), data.chunks().size());
}

absl::Status FetchChunks(Client& client, std::span<const ChunkRef> chunks, LayerRange layers,
                         const EngineMemory& destination) {
  KDN_ASSIGN_OR_RETURN(const FetchReport report,
                       client.Fetch(chunks, destination.view(), {.deadline = kCallDeadline, .layers = layers}));
  if (report.AllReady()) return absl::OkStatus();
  return DataLoss("chunk {} did not come: {}", report.ready, report.chunks[report.ready].miss.detail);
}

absl::Status DeleteAll(Client& client, const Dataset& data) {
  KDN_ASSIGN_OR_RETURN(const std::vector<absl::Status> chunks, client.Delete(data.Keys(), kCallDeadline));
  for (const absl::Status& status : chunks) KDN_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

std::string SizeName(uint64_t kib) {
  return kib < 1024 ? fmt::format("{} KiB", kib) : fmt::format("{} MiB", kib / 1024);
}

}  // namespace kdn::bench
