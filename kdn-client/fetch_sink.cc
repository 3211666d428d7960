#include "kdn-client/fetch_sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "kdn-client/call_rules.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// The first `size` bytes of `buffer`, which is made anew, without its bytes, where it is smaller.
MutableByteSpan AtLeast(uint64_t size, Buffer& buffer) {
  if (buffer.size() < size) buffer = Buffer(size);
  return buffer.span().first(size);
}

}  // namespace

FetchSink::FetchSink(const SpaceId& id, const KvSpace& space, std::span<const ChunkRef> chunks, const KvView& view,
                     Want want)
    : id_(id), space_(space), chunks_(chunks), view_(view), want_(std::move(want)), arrivals_(chunks.size()) {
  if (want_.on_layer == nullptr) return;
  awaited_.resize(LayerCount(space));
  for (const SlabInfo& slab : SlabsOf(space, space.chunk_tokens)) awaited_[slab.layer] += chunks.size();
}

bool FetchSink::OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) {
  if (chunk >= arrivals_.size()) return false;
  Arrival& arrival = arrivals_[chunk];
  if (arrival.phase == Phase::kArriving) Fail(chunk, MissReason::kProtocol, "the chunk was announced twice");
  if (arrival.phase != Phase::kAwaited) return false;

  Miss miss = Examine(chunks_[chunk], *manifest);
  if (miss.reason != MissReason::kNone) {
    Fail(chunk, miss.reason, std::move(miss.detail));
    return false;
  }
  arrival.phase = Phase::kArriving;
  arrival.manifest = manifest;
  arrival.next_slab = NextWanted(*manifest, 0);
  arrival.outcome.tier = tier;
  return true;
}

void FetchSink::OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
  if (chunk >= arrivals_.size() || arrivals_[chunk].phase != Phase::kArriving) return;
  if (open_.open && open_.chunk != chunk) {
    Fail(open_.chunk, MissReason::kProtocol,
         fmt::format("a slab of layer {} was cut short by chunk {}", open_.info->layer, chunk));
  }
  const Arrival& arrival = arrivals_[chunk];
  if (slab != arrival.next_slab) {
    return Fail(chunk, MissReason::kProtocol, fmt::format("slab {} came where {} must", slab, arrival.next_slab));
  }
  const SlabInfo& info = arrival.manifest->slabs[slab];
  const uint64_t received = open_.open ? open_.received : 0;
  if (offset != received || part.size() > info.encoded_size - received) {
    return Fail(chunk, MissReason::kProtocol,
                fmt::format("slab {}: {} bytes at {} came after {} of {} bytes", slab, part.size(), offset, received,
                            info.encoded_size));
  }
  if (!open_.open) Begin(chunk, info);
  Append(part);
}

void FetchSink::OnMiss(size_t chunk, const Miss& miss) {
  if (chunk >= arrivals_.size()) return;
  Fail(chunk, miss.reason == MissReason::kNone ? MissReason::kProtocol : miss.reason, miss.detail);
}

std::vector<ChunkOutcome> FetchSink::Finish(const absl::Status& fetch) && {
  Miss cause = MissFromCall(fetch);
  if (fetch.ok()) cause = {MissReason::kProtocol, "the stream ended before the chunk was whole"};
  std::vector<ChunkOutcome> outcomes;
  outcomes.reserve(arrivals_.size());
  for (size_t i = 0; i < arrivals_.size(); ++i) {
    Fail(i, cause.reason, cause.detail);
    outcomes.push_back(std::move(arrivals_[i].outcome));
  }
  return outcomes;
}

Miss FetchSink::Examine(const ChunkRef& asked, const Manifest& manifest) const {
  if (manifest.space != id_) {
    return {MissReason::kWrongSpace, fmt::format("the chunk is of space {}, this client's is {}",
                                                 manifest.space.ToShortHex(), id_.ToShortHex())};
  }
  if (manifest.key != asked.key) {
    return {MissReason::kProtocol,
            fmt::format("chunk {} came where {} was asked for", manifest.key.ToShortHex(), asked.key.ToShortHex())};
  }
  if (manifest.parent != asked.parent || manifest.first_token != asked.first_token || manifest.tokens != asked.tokens) {
    return {MissReason::kGeometry,
            fmt::format("the chunk is tokens [{}, +{}) after {}, asked for were [{}, +{}) after {}",
                        manifest.first_token, manifest.tokens, manifest.parent.ToShortHex(), asked.first_token,
                        asked.tokens, asked.parent.ToShortHex())};
  }
  if (const absl::Status fits = CheckGeometry(manifest, id_, space_); !fits.ok()) {
    return {MissReason::kGeometry, MessageOf(fits)};
  }
  if (manifest.fidelity < want_.least) {
    return {MissReason::kFidelity, fmt::format("the chunk's fidelity is {}, asked for was at least {}",
                                               static_cast<int>(manifest.fidelity), static_cast<int>(want_.least))};
  }
  for (const SlabInfo& slab : manifest.slabs) {
    if (!want_.layers.Contains(slab.layer)) continue;
    const absl::StatusOr<const Codec*> codec = FindCodec(slab.codec);
    if (!codec.ok()) return {MissReason::kUnknownCodec, MessageOf(codec.status())};
    if ((*codec)->fidelity() < want_.least) {
      return {MissReason::kFidelity,
              fmt::format("layer {}: codec {} is less exact than asked for", slab.layer, (*codec)->name())};
    }
    if (slab.encoded_size == 0 || (slab.codec == CodecId::kRaw && slab.encoded_size != slab.shape.RawSize())) {
      return {MissReason::kGeometry,
              fmt::format("layer {}: a slab of {} bytes is stored as {} bytes by codec {}", slab.layer,
                          slab.shape.RawSize(), slab.encoded_size, (*codec)->name())};
    }
  }
  return {};
}

uint32_t FetchSink::NextWanted(const Manifest& manifest, uint32_t slab) const {
  while (slab < manifest.slabs.size() && !want_.layers.Contains(manifest.slabs[slab].layer)) ++slab;
  return slab;
}

void FetchSink::Begin(size_t chunk, const SlabInfo& info) {
  const uint64_t at_token = uint64_t{want_.token_offset} + chunks_[chunk].first_token;
  open_ = {.open = true,
           .chunk = chunk,
           .info = &info,
           .codec = *FindCodec(info.codec),
           .received = 0,
           .place = view_.Place(info, at_token)};
  if (open_.Streams()) writer_.Start(open_.place);
}

void FetchSink::Append(ByteSpan part) {
  const uint64_t size = open_.info->encoded_size;
  const uint64_t at = open_.received;
  open_.received += part.size();
  const bool last = open_.received == size;
  if (open_.Streams()) {
    writer_.Append(part);
    if (last) Complete(VerifyChecksum(writer_.Checksum()));
  } else if (part.size() == size) {
    Complete(Decode(part));
  } else {
    const MutableByteSpan gathered = AtLeast(size, gathered_);
    std::copy(part.begin(), part.end(), gathered.data() + at);
    if (last) Complete(Decode(gathered));
  }
}

absl::Status FetchSink::VerifyChecksum(uint64_t checksum) const {
  if (checksum == open_.info->checksum) return absl::OkStatus();
  return DataLoss("checksum {:016x}, the manifest says {:016x}", checksum, open_.info->checksum);
}

absl::Status FetchSink::Decode(ByteSpan encoded) {
  KDN_RETURN_IF_ERROR(VerifyChecksum(SlabChecksum(encoded)));
  const SlabInfo& info = *open_.info;
  if (info.codec == CodecId::kRaw) {
    open_.place.Write(0, encoded);
    return absl::OkStatus();
  }
  const MutableByteSpan direct = open_.place.Direct();
  if (!direct.empty()) return open_.codec->Decode(info.shape, info.kind, encoded, direct);
  const MutableByteSpan decoded = AtLeast(info.shape.RawSize(), decoded_);
  KDN_RETURN_IF_ERROR(open_.codec->Decode(info.shape, info.kind, encoded, decoded));
  open_.place.Write(0, decoded);
  return absl::OkStatus();
}

void FetchSink::Complete(const absl::Status& verified) {
  const OpenSlab slab = std::exchange(open_, {});
  if (!verified.ok()) {
    return Fail(slab.chunk, MissReason::kCorrupt, fmt::format("layer {}: {}", slab.info->layer, MessageOf(verified)));
  }
  Arrival& arrival = arrivals_[slab.chunk];
  arrival.outcome.encoded_bytes += slab.info->encoded_size;
  arrival.outcome.raw_bytes += slab.place.MemoryBytes();
  arrival.next_slab = NextWanted(*arrival.manifest, arrival.next_slab + 1);
  if (arrival.next_slab == arrival.manifest->slabs.size()) arrival.phase = Phase::kHit;
  if (want_.on_layer != nullptr && --awaited_[slab.info->layer] == 0) want_.on_layer(slab.info->layer);
}

// A chunk that has been decided stays as it is.
void FetchSink::Fail(size_t chunk, MissReason reason, std::string detail) {
  Arrival& arrival = arrivals_[chunk];
  if (arrival.phase == Phase::kHit || arrival.phase == Phase::kMissed) return;
  if (open_.open && open_.chunk == chunk) open_ = {};
  arrival.phase = Phase::kMissed;
  arrival.outcome.miss = {reason, std::move(detail)};
}

}  // namespace kdn
