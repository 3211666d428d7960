// Topology: which node holds what, as a value. Numbered by epochs: a change makes a new topology with the next epoch,
// and two that have the same cluster and epoch are equal, so that whoever holds one computes the same answers.
//
//   absl::StatusOr<TopologyPtr> topology = DecodeTopology(bytes);
//   const Partition partition = (*topology)->PartitionOf(key);
//   const NodeList readers = (*topology)->Readers(key);  // named: slots() looks into it
//   for (NodeSlot slot : readers.slots()) Ask((*topology)->NodeAt(slot)->address);
//
// A key's first 32 bits, big endian, shifted right until partition_bits are left, are its partition. Each partition has
// a row of `replicas` owners. While chunks are on their way a partition also has a Move: owners that are still filling,
// and former owners that hold its chunks until they are done. An owner that is not filling has settled.
//
// Thread-safety: immutable values; PartitionOf, Readers and Writers may be called from any thread, and cost a few
// nanoseconds.
#ifndef KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_H_
#define KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "storage/format/digest.h"

namespace kdn {

using Partition = uint32_t;
using NodeSlot = uint16_t;  // stands for a node in tables
using Epoch = uint64_t;     // 0: no topology

inline constexpr NodeSlot kNoSlot = 0xffff;
inline constexpr uint32_t kMinPartitionBits = 4;
inline constexpr uint32_t kMaxPartitionBits = 16;
inline constexpr uint32_t kDefaultPartitionBits = 14;
inline constexpr uint32_t kMaxReplicas = 5;
inline constexpr uint32_t kMaxNodes = 16'384;
inline constexpr uint32_t kMaxWeight = 1'000'000;
inline constexpr uint32_t kDefaultWeight = 100;
inline constexpr size_t kMaxHotChunks = 1024;
inline constexpr size_t kMaxHotExtras = 3;
inline constexpr size_t kMaxLeaving = 8;  // former owners of one partition that are remembered

// The numbers are part of the protocol.
enum class NodeState : uint8_t {
  kJoining = 1,  // known, and not yet given partitions, or still filling its first ones
  kActive = 2,
  kDraining = 3,  // serves, and is given nothing new
  kDown = 4,      // its session is over
};
std::string_view NodeStateName(NodeState state);

struct NodeInfo {
  std::string id;  // 1 to 64 of [A-Za-z0-9._-]
  NodeSlot slot = kNoSlot;
  std::string address;  // HOST:PORT
  std::string zone;     // what fails together; empty: nothing else fails with this node
  uint32_t weight = kDefaultWeight;
  NodeState state = NodeState::kJoining;
  uint64_t incarnation = 0;  // of the process
  uint64_t capacity_bytes = 0;
  bool returns_draining = false;  // DOWN, and was DRAINING: so it will be when it is back

  bool Serves() const { return state != NodeState::kDown; }
  friend bool operator==(const NodeInfo&, const NodeInfo&) = default;
};

struct Move {
  std::vector<NodeSlot> filling = {};  // owners that do not have all of the partition's chunks yet
  std::vector<NodeSlot> leaving = {};  // no owners any longer, and hold what they have meanwhile
  // Of `leaving`: those that never had all of it. They may be the only ones that hold what was stored while they were
  // owners, so that who fills asks them as well.
  std::vector<NodeSlot> partial = {};
  friend bool operator==(const Move&, const Move&) = default;
};

struct HotChunk {
  SpaceId space;
  std::vector<NodeSlot> extra;  // nodes that hold it besides its owners
  friend bool operator==(const HotChunk&, const HotChunk&) = default;
};

// What a topology is made of. Change a copy, then make a Topology of it.
struct TopologyParts {
  std::string cluster;      // name, 1 to 64 of [A-Za-z0-9._-]
  uint64_t cluster_id = 0;  // drawn when it was made
  Epoch epoch = 0;
  uint32_t partition_bits = kDefaultPartitionBits;
  uint32_t replicas = 2;
  std::vector<NodeInfo> nodes;   // by id
  std::vector<NodeSlot> owners;  // `replicas` for each partition; kNoSlot after the last of a row
  std::map<Partition, Move> moves;
  std::map<ChunkKey, HotChunk> hot;
  friend bool operator==(const TopologyParts&, const TopologyParts&) = default;
};

inline bool Contains(std::span<const NodeSlot> slots, NodeSlot slot) {
  return std::ranges::find(slots, slot) != slots.end();
}

// A few nodes, in the order in which they should be asked or told.
class NodeList {
 public:
  static constexpr size_t kCapacity = 16;
  void Add(NodeSlot slot) {  // what is there already, or beyond the capacity, is left out
    for (size_t i = 0; i < size_; ++i) {
      if (slots_[i] == slot) return;
    }
    if (size_ < kCapacity) slots_[size_++] = slot;
  }
  std::span<const NodeSlot> slots() const& { return std::span(slots_).first(size_); }
  std::span<const NodeSlot> slots() const&& = delete;  // it would outlive the list
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  std::array<NodeSlot, kCapacity> slots_{};
  size_t size_ = 0;
};

class Topology;
using TopologyPtr = std::shared_ptr<const Topology>;

class Topology : public std::enable_shared_from_this<Topology> {
 public:
  // Nodes may come in any order, and so may the slots of a move; both are sorted. INVALID_ARGUMENT naming what is
  // wrong: names, slots (each once, below kNoSlot), rows (a slot that no node has, a node twice), moves that contradict
  // the rows, limits.
  static absl::StatusOr<TopologyPtr> Make(TopologyParts parts);

  const TopologyParts& parts() const { return parts_; }
  const std::string& cluster() const { return parts_.cluster; }
  Epoch epoch() const { return parts_.epoch; }
  uint32_t partitions() const { return uint32_t{1} << parts_.partition_bits; }
  uint32_t replicas() const { return parts_.replicas; }

  const NodeInfo* NodeAt(NodeSlot slot) const;          // null: there is none
  const NodeInfo* FindNode(std::string_view id) const;  // null: there is none

  Partition PartitionOf(const ChunkKey& key) const { return PartitionOf(key, parts_.partition_bits); }
  static Partition PartitionOf(const ChunkKey& key, uint32_t partition_bits);

  // The row of a partition, nodes that are down and those that are filling included.
  std::span<const NodeSlot> Owners(Partition partition) const;
  const Move* MoveOf(Partition partition) const;  // null: it does not move

  // Nodes that are not down and may hold the chunk. First those that should: owners that have settled, and the extra
  // ones of a hot chunk (`settled` of them, any of which is as good as the other); then former owners, those that had
  // all of it before the others; then owners that are filling.
  struct ReaderList : NodeList {
    static constexpr size_t kNoHome = SIZE_MAX;
    size_t settled = 0;
    // One of the settled, the same one for everybody, and each as often as the others: asked there, a chunk takes the
    // memory of one node alone. None for a hot chunk, which has more holders so that they share its requests.
    size_t home = kNoHome;
  };
  ReaderList Readers(const ChunkKey& key) const;

  // Owners that are not down: who has to take a new chunk.
  NodeList Writers(const ChunkKey& key) const;

  // How many partitions a node owns, fills, and still holds as a former owner.
  struct Share {
    uint32_t owned = 0;
    uint32_t filling = 0;
    uint32_t leaving = 0;
  };
  Share ShareOf(NodeSlot slot) const;

 private:
  struct Slot {
    const NodeInfo* node = nullptr;
    Share share;
  };

  explicit Topology(TopologyParts parts);

  bool Serves(NodeSlot slot) const { return serves_[slot] != 0; }

  const TopologyParts parts_;
  std::vector<Slot> slots_;
  std::vector<uint8_t> serves_;  // by slot; apart from the rest, as every key asks it
  // By partition, and empty while nothing moves: most keys need no look-up.
  std::vector<const Move*> moves_;
  absl::flat_hash_map<ChunkKey, const HotChunk*> hot_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_H_
