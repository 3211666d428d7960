#include "placement/topology/validate.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <vector>

#include "storage/base/status.h"

namespace kdn {
namespace {

bool IsNameCharacter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool IsPrintable(char c) { return c >= 0x20 && c < 0x7f; }

// For messages: what a peer sent may be long, and may be no text.
std::string Shown(std::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, 80)) shown += IsPrintable(c) ? c : '?';
  return shown;
}

// Which slots the nodes have.
class KnownSlots {
 public:
  explicit KnownSlots(const TopologyParts& parts) : known_(size_t{kNoSlot} + 1) {
    for (const NodeInfo& node : parts.nodes) known_[node.slot] = true;
  }
  bool Has(NodeSlot slot) const { return known_[slot]; }

 private:
  std::vector<bool> known_;
};

// Sorted, none twice, all known.
absl::Status ValidateSlots(std::span<const NodeSlot> slots, const KnownSlots& known, const std::string& what) {
  for (size_t i = 0; i < slots.size(); ++i) {
    if (!known.Has(slots[i])) return InvalidArgument("{}: no node has slot {}", what, slots[i]);
    if (Contains(slots.first(i), slots[i])) return InvalidArgument("{}: slot {} appears twice", what, slots[i]);
  }
  return absl::OkStatus();
}

absl::Status ValidateNodes(const TopologyParts& parts) {
  if (parts.nodes.size() > kMaxNodes) {
    return InvalidArgument("{} nodes; a cluster has at most {}", parts.nodes.size(), kMaxNodes);
  }
  std::vector<bool> used(kNoSlot);
  const NodeInfo* last = nullptr;
  for (const NodeInfo& node : parts.nodes) {
    KDN_RETURN_IF_ERROR(ValidateNode(node));
    if (last != nullptr && last->id == node.id) return InvalidArgument("node '{}' appears twice", node.id);
    if (node.slot == kNoSlot) return InvalidArgument("node '{}': slot {} stands for no node", node.id, node.slot);
    if (used[node.slot]) return InvalidArgument("node '{}': another node has slot {} as well", node.id, node.slot);
    used[node.slot] = true;
    last = &node;
  }
  return absl::OkStatus();
}

std::span<const NodeSlot> RowOf(const TopologyParts& parts, Partition partition) {
  const auto row = std::span(parts.owners).subspan(size_t{partition} * parts.replicas, parts.replicas);
  return row.first(static_cast<size_t>(std::find(row.begin(), row.end(), kNoSlot) - row.begin()));
}

absl::Status ValidateRows(const TopologyParts& parts, const KnownSlots& known) {
  const uint32_t partitions = uint32_t{1} << parts.partition_bits;
  if (parts.owners.size() != size_t{partitions} * parts.replicas) {
    return InvalidArgument("the table has {} owners; {} partitions of {} replicas have {}", parts.owners.size(),
                           partitions, parts.replicas, size_t{partitions} * parts.replicas);
  }
  for (Partition partition = 0; partition < partitions; ++partition) {
    const NodeSlot* row = parts.owners.data() + size_t{partition} * parts.replicas;
    bool ended = false;
    for (uint32_t i = 0; i < parts.replicas; ++i) {
      if (row[i] == kNoSlot) {
        ended = true;
        continue;
      }
      if (ended) return InvalidArgument("partition {}: an owner after the end of its row", partition);
      if (!known.Has(row[i])) return InvalidArgument("partition {}: no node has slot {}", partition, row[i]);
      if (Contains({row, i}, row[i])) return InvalidArgument("partition {}: slot {} owns it twice", partition, row[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateMove(const TopologyParts& parts, const KnownSlots& known, Partition partition, const Move& move) {
  if (partition >= uint32_t{1} << parts.partition_bits) {
    return InvalidArgument("partition {} moves; there are {} only", partition, uint32_t{1} << parts.partition_bits);
  }
  const std::string what = fmt::format("move of partition {}", partition);
  KDN_RETURN_IF_ERROR(ValidateSlots(move.filling, known, what));
  KDN_RETURN_IF_ERROR(ValidateSlots(move.leaving, known, what));
  KDN_RETURN_IF_ERROR(ValidateSlots(move.partial, known, what));
  const std::span<const NodeSlot> row = RowOf(parts, partition);
  for (const NodeSlot slot : move.filling) {
    if (!Contains(row, slot)) return InvalidArgument("{}: slot {} is filling, and does not own it", what, slot);
  }
  if (move.leaving.size() > kMaxLeaving) return InvalidArgument("{}: more than {} are leaving", what, kMaxLeaving);
  for (const NodeSlot slot : move.leaving) {
    if (Contains(row, slot)) return InvalidArgument("{}: slot {} is leaving, and owns it", what, slot);
  }
  for (const NodeSlot slot : move.partial) {
    if (!Contains(move.leaving, slot)) return InvalidArgument("{}: slot {} is partial, and not leaving", what, slot);
  }
  if (move.filling.empty() && (move.leaving.empty() || !row.empty())) {
    return InvalidArgument("{}: nobody is filling, so nothing moves", what);
  }
  return absl::OkStatus();
}

absl::Status ValidateHot(const TopologyParts& parts, const KnownSlots& known) {
  if (parts.hot.size() > kMaxHotChunks) {
    return InvalidArgument("{} hot chunks; there are at most {}", parts.hot.size(), kMaxHotChunks);
  }
  for (const auto& [key, chunk] : parts.hot) {
    const std::string what = fmt::format("hot chunk {}", key.ToShortHex());
    if (chunk.extra.empty() || chunk.extra.size() > kMaxHotExtras) {
      return InvalidArgument("{}: {} extra nodes; there are 1 to {}", what, chunk.extra.size(), kMaxHotExtras);
    }
    KDN_RETURN_IF_ERROR(ValidateSlots(chunk.extra, known, what));
    const std::span<const NodeSlot> row = RowOf(parts, Topology::PartitionOf(key, parts.partition_bits));
    for (const NodeSlot slot : chunk.extra) {
      if (Contains(row, slot)) return InvalidArgument("{}: slot {} is extra, and owns it", what, slot);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateName(std::string_view what, std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || !std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return InvalidArgument("{} '{}' is none; give 1 to {} letters, digits, '.', '_' or '-'", what, Shown(name),
                           kMaxNameBytes);
  }
  return absl::OkStatus();
}

absl::Status ValidateAddress(std::string_view address) {
  const size_t colon = address.rfind(':');
  const std::string_view host = address.substr(0, colon == std::string_view::npos ? 0 : colon);
  const bool brackets = host.starts_with('[') && host.ends_with(']') && host.size() > 2;
  uint32_t port = 0;
  bool good = !host.empty() && address.size() <= kMaxAddressBytes &&
              std::all_of(host.begin(), host.end(), [](char c) { return IsPrintable(c) && c != ' ' && c != '/'; }) &&
              (brackets || host.find_first_of(":[]") == std::string_view::npos);
  if (good) {
    const std::string_view digits = address.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    good = error == std::errc() && end == digits.data() + digits.size() && port >= 1 && port <= 65535;
  }
  if (!good) {
    return InvalidArgument("'{}' is no address; give HOST:PORT, as in 10.0.0.1:7401 or [::1]:7401", Shown(address));
  }
  return absl::OkStatus();
}

absl::Status ValidateNode(const NodeInfo& node) {
  KDN_RETURN_IF_ERROR(ValidateName("node id", node.id));
  KDN_RETURN_IF_ERROR(Annotate(ValidateAddress(node.address), fmt::format("node '{}'", node.id)));
  if (node.zone.size() > kMaxNameBytes || !std::all_of(node.zone.begin(), node.zone.end(), IsPrintable)) {
    return InvalidArgument("node '{}': zone '{}' is none; give at most {} printable characters", node.id,
                           Shown(node.zone), kMaxNameBytes);
  }
  if (node.weight < 1 || node.weight > kMaxWeight) {
    return InvalidArgument("node '{}': weight {} is out of range; give 1 to {}", node.id, node.weight, kMaxWeight);
  }
  if (node.state < NodeState::kJoining || node.state > NodeState::kDown) {
    return InvalidArgument("node '{}': {} is no state", node.id, static_cast<unsigned>(node.state));
  }
  if (node.returns_draining && node.state != NodeState::kDown) {
    return InvalidArgument("node '{}': only a node that is down returns draining", node.id);
  }
  return absl::OkStatus();
}

absl::Status ValidateParts(const TopologyParts& parts) {
  KDN_RETURN_IF_ERROR(ValidateName("cluster name", parts.cluster));
  if (parts.cluster_id == 0) return InvalidArgument("cluster '{}' has no id; draw one that is not 0", parts.cluster);
  if (parts.epoch == 0) return InvalidArgument("cluster '{}': epochs begin with 1", parts.cluster);
  if (parts.partition_bits < kMinPartitionBits || parts.partition_bits > kMaxPartitionBits) {
    return InvalidArgument("{} partition bits; give {} to {}", parts.partition_bits, kMinPartitionBits,
                           kMaxPartitionBits);
  }
  if (parts.replicas < 1 || parts.replicas > kMaxReplicas) {
    return InvalidArgument("{} replicas; give 1 to {}", parts.replicas, kMaxReplicas);
  }
  KDN_RETURN_IF_ERROR(ValidateNodes(parts));
  const KnownSlots known(parts);
  KDN_RETURN_IF_ERROR(ValidateRows(parts, known));
  for (const auto& [partition, move] : parts.moves) KDN_RETURN_IF_ERROR(ValidateMove(parts, known, partition, move));
  return ValidateHot(parts, known);
}

}  // namespace kdn
