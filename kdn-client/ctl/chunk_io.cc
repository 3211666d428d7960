#include "kdn-client/ctl/chunk_io.h"

#include <optional>
#include <utility>

#include "storage/base/status.h"
#include "storage/chunk_assembler.h"

namespace kdn::ctl {
namespace {

class AssemblingSink final : public SlabSink {
 public:
  explicit AssemblingSink(const SpaceId& space, std::span<const ChunkKey> keys)
      : space_(space), keys_(keys), chunks_(keys.size()) {}

  bool OnChunk(size_t index, const ManifestPtr& manifest, TierKind) override {
    OfChunk& chunk = chunks_[index];
    chunk = {};
    if (manifest->space != space_ || manifest->key != keys_[index]) {
      chunk.failure = DataLoss("chunk {}: what came is chunk {} of space {}", keys_[index].ToShortHex(),
                               manifest->key.ToShortHex(), manifest->space.ToShortHex());
      return false;
    }
    const absl::StatusOr<std::string> bytes = EncodeManifest(*manifest);
    absl::StatusOr<ChunkAssembler> assembler =
        bytes.ok() ? ChunkAssembler::Start(AsBytes(*bytes)) : absl::StatusOr<ChunkAssembler>(bytes.status());
    if (!assembler.ok()) {
      chunk.failure = assembler.status();
      return false;
    }
    chunk.assembler.emplace(*std::move(assembler));
    return true;
  }

  void OnPart(size_t index, uint32_t slab, uint64_t offset, ByteSpan part) override {
    OfChunk& chunk = chunks_[index];
    if (!chunk.assembler.has_value() || !chunk.failure.ok()) return;
    chunk.failure = chunk.assembler->Add(slab, offset, part);
  }

  void OnMiss(size_t index, const Miss& miss) override {
    chunks_[index] = {};
    chunks_[index].failure = StatusOfMiss(keys_[index], miss);
  }

  // `ended`: how the fetch did, for the chunks that it says nothing of.
  absl::StatusOr<Chunk> Take(size_t index, const absl::Status& ended) {
    OfChunk& chunk = chunks_[index];
    if (!chunk.failure.ok()) return chunk.failure;
    if (!ended.ok() && !chunk.assembler.has_value()) return ended;
    if (!chunk.assembler.has_value()) return Internal("chunk {}: nothing was said of it", keys_[index].ToShortHex());
    absl::StatusOr<Chunk> whole = std::move(*chunk.assembler).Finish();
    return whole.ok() || ended.ok() ? std::move(whole) : absl::StatusOr<Chunk>(ended);
  }

 private:
  struct OfChunk {
    std::optional<ChunkAssembler> assembler;
    absl::Status failure;
  };

  const SpaceId space_;
  const std::span<const ChunkKey> keys_;
  std::vector<OfChunk> chunks_;
};

}  // namespace

absl::Status StatusOfMiss(const ChunkKey& key, const Miss& miss) {
  const std::string what = fmt::format("chunk {}: {} ({})", key.ToShortHex(), miss.detail, MissReasonName(miss.reason));
  switch (miss.reason) {
    case MissReason::kNone:
      return absl::OkStatus();
    case MissReason::kNotFound:
    case MissReason::kWrongSpace:
      return NotFound("{}", what);
    case MissReason::kUnreachable:
      return Unavailable("{}", what);
    case MissReason::kDeadline:
      return DeadlineExceeded("{}", what);
    case MissReason::kRefused:
      return ResourceExhausted("{}", what);
    case MissReason::kCorrupt:
      return DataLoss("{}", what);
    default:
      return Internal("{}", what);
  }
}

std::vector<absl::StatusOr<Chunk>> FetchChunks(Transport& transport, const SpaceId& space,
                                               std::span<const ChunkKey> keys, absl::Time deadline) {
  AssemblingSink sink(space, keys);
  const FetchQuery query = {.space = space, .keys = keys, .least = Fidelity::kApproximate};
  const absl::Status ended = transport.Fetch(query, deadline, sink);
  std::vector<absl::StatusOr<Chunk>> chunks;
  chunks.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) chunks.push_back(sink.Take(i, ended));
  return chunks;
}

}  // namespace kdn::ctl
