// Between protobuf messages and storage values: validation of what a peer names on the way in, plain copies on the way
// out.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_NODE_WIRE_CONVERT_H_
#define KDN_KDN_NODE_WIRE_CONVERT_H_

#include <grpcpp/support/status.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn/v1/node.pb.h"
#include "storage/chunk.h"
#include "storage/format/codec.h"
#include "storage/format/digest.h"
#include "storage/format/manifest.h"
#include "storage/tier/tier.h"
#include "storage/tiered_store.h"

namespace kdn {

// The space and the chunks that a call names.
struct KeySet {
  SpaceId space;
  std::vector<ChunkKey> keys;
};
// INVALID_ARGUMENT: a space or key of a wrong length, or more than wire::kMaxKeysPerCall keys.
absl::StatusOr<KeySet> ParseKeys(const std::string& space_id, const std::string& keys);

// INVALID_ARGUMENT on a number that is not listed in the protocol.
absl::StatusOr<Fidelity> ParseFidelity(v1::Fidelity fidelity);
absl::StatusOr<Ack> ParseAck(v1::Ack ack);

// A number that is not listed is taken for an engine.
Asker AskerFromWire(v1::CallOrigin origin);

struct FetchCall {
  KeySet what;
  Asker asker = Asker::kEngine;
  bool looked_up = false;  // by the same asker, here or elsewhere
  LayerRange layers;
  Fidelity least = Fidelity::kExact;
  bool layer_major = false;
  uint32_t frame_bytes = 0;  // payload of a data frame
  bool join_frames = false;
  HeadRange heads;               // that should travel
  const Codec* codec = nullptr;  // by which slabs should travel; null: as they are stored
};
absl::StatusOr<FetchCall> ParseFetchRequest(const v1::FetchRequest& request);

v1::MissReason ToWire(MissReason reason);
v1::Tier ToWire(TierKind tier);
v1::Fidelity ToWire(Fidelity fidelity);
v1::ChunkStatus ToWire(const absl::Status& status);
v1::TierStats ToWire(const TierStats& stats);
v1::ChunkFound ToWire(const FoundChunk& found);

grpc::Status ToGrpc(const absl::Status& status);

// `message` as protobuf's `string` fields demand it (ASCII), and no longer than a peer needs.
std::string WireText(std::string message);

}  // namespace kdn

#endif  // KDN_KDN_NODE_WIRE_CONVERT_H_
