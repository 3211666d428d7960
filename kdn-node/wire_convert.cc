#include "kdn-node/wire_convert.h"

#include <utility>

#include "proto/wire/frames.h"
#include "storage/base/status.h"

namespace kdn {

static_assert(int{v1::MISS_REASON_INTERNAL} == static_cast<int>(MissReason::kInternal));
static_assert(int{v1::TIER_DISK} == static_cast<int>(TierKind::kDisk));
static_assert(int{v1::TIER_COLD_DISK} == static_cast<int>(TierKind::kColdDisk));
static_assert(int{v1::FIDELITY_EXACT} == static_cast<int>(Fidelity::kExact));
static_assert(int{v1::ACK_DURABLE} == static_cast<int>(Ack::kDurable));

absl::StatusOr<KeySet> ParseKeys(const std::string& space_id, const std::string& keys) {
  KeySet set;
  if (space_id.size() != kDigestSize) {
    return InvalidArgument("space_id has {} bytes; a space is named by {}", space_id.size(), kDigestSize);
  }
  KDN_ASSIGN_OR_RETURN(set.space, SpaceId::FromBytes(AsBytes(space_id)));
  if (keys.size() % kDigestSize != 0) {
    return InvalidArgument("keys has {} bytes; send {} for each key, one after another", keys.size(), kDigestSize);
  }
  const size_t count = keys.size() / kDigestSize;
  if (count > wire::kMaxKeysPerCall) {
    return InvalidArgument("{} keys in one call; send at most {}", count, wire::kMaxKeysPerCall);
  }
  set.keys.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    KDN_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(AsBytes(keys).subspan(i * kDigestSize, kDigestSize)));
    set.keys.push_back(key);
  }
  return set;
}

absl::StatusOr<Fidelity> ParseFidelity(v1::Fidelity fidelity) {
  switch (fidelity) {
    case v1::FIDELITY_UNSPECIFIED:
    case v1::FIDELITY_EXACT:
      return Fidelity::kExact;
    case v1::FIDELITY_QUANTISED:
      return Fidelity::kQuantised;
    case v1::FIDELITY_APPROXIMATE:
      return Fidelity::kApproximate;
    default:
      return InvalidArgument("least_fidelity {} is unknown; this node knows up to {}", static_cast<int>(fidelity),
                             static_cast<int>(v1::FIDELITY_EXACT));
  }
}

absl::StatusOr<Ack> ParseAck(v1::Ack ack) {
  switch (ack) {
    case v1::ACK_UNSPECIFIED:
    case v1::ACK_MEMORY:
      return Ack::kMemory;
    case v1::ACK_DURABLE:
      return Ack::kDurable;
    default:
      return InvalidArgument("ack {} is unknown; this node knows up to {}", static_cast<int>(ack),
                             static_cast<int>(v1::ACK_DURABLE));
  }
}

Asker AskerFromWire(v1::CallOrigin origin) {
  if (origin == v1::CALL_ORIGIN_NODE) return Asker::kNode;
  return origin == v1::CALL_ORIGIN_OPERATOR ? Asker::kOperator : Asker::kEngine;
}

absl::StatusOr<FetchCall> ParseFetchRequest(const v1::FetchRequest& request) {
  FetchCall call;
  KDN_ASSIGN_OR_RETURN(call.what, ParseKeys(request.space_id(), request.keys()));
  call.asker = AskerFromWire(request.origin());
  call.looked_up = request.looked_up();
  call.layers.begin = request.layer_begin();
  if (request.layer_end() != 0) call.layers.end = request.layer_end();
  if (call.layers.begin >= call.layers.end) {
    return InvalidArgument("layers [{}, {}) are empty; layer_end is exclusive, and 0 means to the last layer",
                           call.layers.begin, call.layers.end);
  }
  KDN_ASSIGN_OR_RETURN(call.least, ParseFidelity(request.least_fidelity()));
  switch (request.order()) {
    case v1::FetchRequest::ORDER_UNSPECIFIED:
    case v1::FetchRequest::ORDER_CHUNK_MAJOR:
      break;
    case v1::FetchRequest::ORDER_LAYER_MAJOR:
      call.layer_major = true;
      break;
    default:
      return InvalidArgument("order {} is unknown; ask for CHUNK_MAJOR or LAYER_MAJOR",
                             static_cast<int>(request.order()));
  }
  if (!request.codec_wish().empty()) {
    const absl::StatusOr<const Codec*> codec = FindCodec(request.codec_wish());
    if (!codec.ok()) return Annotate(codec.status(), "codec_wish");
    call.codec = *codec;
  }
  call.heads.begin = request.heads().begin();
  if (request.heads().end() != 0) call.heads.end = request.heads().end();
  if (call.heads.begin >= call.heads.end) {
    return InvalidArgument("heads [{}, {}) are empty; end is exclusive, and 0 means to the last head", call.heads.begin,
                           call.heads.end);
  }
  call.join_frames = request.join_frames();
  call.frame_bytes = request.max_frame_bytes() == 0 ? wire::kDefaultFrameBytes : request.max_frame_bytes();
  if (call.frame_bytes < wire::kMinFrameBytes || call.frame_bytes > wire::kMaxFrameBytes) {
    return InvalidArgument("max_frame_bytes {} is out of range; ask for {} to {}, or 0 for {}", call.frame_bytes,
                           wire::kMinFrameBytes, wire::kMaxFrameBytes, wire::kDefaultFrameBytes);
  }
  return call;
}

v1::MissReason ToWire(MissReason reason) { return static_cast<v1::MissReason>(reason); }
v1::Tier ToWire(TierKind tier) { return static_cast<v1::Tier>(tier); }
v1::Fidelity ToWire(Fidelity fidelity) { return static_cast<v1::Fidelity>(fidelity); }

v1::ChunkStatus ToWire(const absl::Status& status) {
  v1::ChunkStatus wire;
  wire.set_code(static_cast<int>(status.code()));
  if (!status.ok()) wire.set_message(WireText(MessageOf(status)));
  return wire;
}

v1::TierStats ToWire(const TierStats& stats) {
  v1::TierStats wire;
  wire.set_chunks(stats.chunks);
  wire.set_bytes(stats.bytes);
  wire.set_budget_bytes(stats.budget_bytes);
  wire.set_puts(stats.puts);
  wire.set_put_bytes(stats.put_bytes);
  wire.set_hits(stats.hits);
  wire.set_misses(stats.misses);
  wire.set_read_bytes(stats.read_bytes);
  wire.set_evictions(stats.evictions);
  wire.set_evicted_bytes(stats.evicted_bytes);
  wire.set_refused(stats.refused);
  wire.set_corrupt(stats.corrupt);
  wire.set_expired(stats.expired);
  wire.set_bypassed(stats.bypassed);
  return wire;
}

v1::ChunkFound ToWire(const FoundChunk& found) {
  v1::ChunkFound wire;
  wire.set_miss(ToWire(found.miss.reason));
  if (found.miss.reason != MissReason::kNone) {
    wire.set_detail(WireText(found.miss.detail));
    return wire;
  }
  wire.set_tier(ToWire(found.tier));
  wire.set_fidelity(ToWire(found.manifest->fidelity));
  wire.set_tokens(found.manifest->tokens);
  wire.set_encoded_bytes(found.manifest->EncodedBytes());
  wire.set_raw_bytes(found.manifest->RawBytes());
  return wire;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), WireText(MessageOf(status)));
}

std::string WireText(std::string message) {
  constexpr size_t kMaxText = 1000;
  if (message.size() > kMaxText) message.resize(kMaxText);
  for (char& c : message) {
    if (static_cast<unsigned char>(c) >= 0x80 || static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return message;
}

}  // namespace kdn
