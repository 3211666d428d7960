#include "placement/daemon/records.h"

#include <zstd.h>

#include <cmath>
#include <utility>

#include "placement/topology/topology_wire.h"
#include "storage/base/status.h"
#include "storage/format/digest.h"

namespace kdn {
namespace {

constexpr int kMaxHotKeys = 64;
constexpr size_t kMaxPlainTopology = size_t{256} << 10;
constexpr int kZstdLevel = 3;
// A frame begins with this; a topology with the tag of its first field.
constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";

}  // namespace

std::string EncodeTopologyRecord(const Topology& topology) {
  std::string plain = EncodeTopology(topology);
  if (plain.size() <= kMaxPlainTopology) return plain;
  std::string frame(ZSTD_compressBound(plain.size()), '\0');
  const size_t size = ZSTD_compress(frame.data(), frame.size(), plain.data(), plain.size(), kZstdLevel);
  if (ZSTD_isError(size)) return plain;
  frame.resize(size);
  return frame;
}

absl::StatusOr<TopologyPtr> DecodeTopologyRecord(std::string_view value) {
  if (!value.starts_with(kZstdMagic)) return DecodeTopology(value);
  const unsigned long long size = ZSTD_getFrameContentSize(value.data(), value.size());  // NOLINT(google-runtime-int)
  if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > kMaxTopologyBytes) {
    return DataLoss("its zstd frame does not say a size up to {}", kMaxTopologyBytes);
  }
  std::string plain(size, '\0');
  const size_t got = ZSTD_decompress(plain.data(), plain.size(), value.data(), value.size());
  if (ZSTD_isError(got) || got != size) return DataLoss("its zstd frame is damaged");
  return DecodeTopology(plain);
}

std::string EncodeNode(const NodeInfo& node) {
  v1::Node wire;
  ToWire(node, wire);
  return wire.SerializeAsString();
}

absl::StatusOr<NodeRecord> DecodeNode(const Record& record) {
  v1::Node wire;
  if (!wire.ParseFromString(record.value)) {
    return DataLoss("the registry's record '{}' is no node; delete it, and the node registers again", record.key);
  }
  absl::StatusOr<NodeInfo> node = NodeFromPeer(std::move(wire));
  if (!node.ok()) {
    return DataLoss("the registry's record '{}' is damaged: {}; delete it, and the node registers again", record.key,
                    MessageOf(node.status()));
  }
  if (NodeKey(node->id) != record.key) {
    return DataLoss("the registry's record '{}' is of node '{}'; delete it, and the node registers again", record.key,
                    node->id);
  }
  if (record.lease == 0) {
    return DataLoss("the registry's record '{}' is under no lease, so that it would never end; delete it", record.key);
  }
  return NodeRecord{.node = *std::move(node), .session = record.lease, .revision = record.revision};
}

absl::StatusOr<NodeInfo> NodeFromPeer(v1::Node wire) {
  wire.set_slot(0);
  wire.set_state(v1::NODE_STATE_JOINING);
  KDN_ASSIGN_OR_RETURN(NodeInfo node, FromWire(wire));
  node.slot = kNoSlot;
  return node;
}

absl::Status CheckLoad(const v1::NodeLoad& load) {
  if (load.hot_size() > kMaxHotKeys) {
    return InvalidArgument("load: {} hot keys; send the {} that are wanted most", load.hot_size(), kMaxHotKeys);
  }
  if (load.busy_permille() > 1000) {
    return InvalidArgument("load: busy_permille {} is over 1000", load.busy_permille());
  }
  for (const v1::HotKey& hot : load.hot()) {
    if (hot.space_id().size() != kDigestSize || hot.key().size() != kDigestSize) {
      return InvalidArgument("load: a hot key has {} bytes and its space {}; both have {}", hot.key().size(),
                             hot.space_id().size(), kDigestSize);
    }
    if (!(hot.fetches_per_second() >= 0) || !std::isfinite(hot.fetches_per_second())) {
      return InvalidArgument("load: {} is no rate of fetches", hot.fetches_per_second());
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn
