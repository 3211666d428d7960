// TopologyChange: how one topology becomes the next. Pure rules without time or I/O: the coordinator decides when, the
// simulator and the tests run the very same.
//
//   TopologyChange change(*topology);
//   change.Join({.id = "a", .address = "10.0.0.1:7401", .zone = "z1"});
//   change.Rebalance();                                        // gives it partitions, with least movement
//   absl::StatusOr<TopologyPtr> next = std::move(change).Finish();  // epoch + 1, or the same one when nothing changed
//
// Life of a node: Join → JOINING, no partitions. Rebalance gives it rows, to be filled from those that hold them. When
// all are Filled it is ACTIVE. Lost → DOWN: its rows stay, but nobody asks it, and the next Rebalance with `abandon`
// set gives them to others. Join again → back, its rows marked filling, as it has missed stores. Drain → DRAINING;
// Rebalance empties it. Forget takes it out.
//
// What a partition remembers of who holds its chunks:
//   - An owner of a partition that somebody else holds is filling until it is Filled. One that nobody has held before
//     settles at once.
//   - Who stops to own a partition while somebody fills it is leaving, until nobody does; also who was itself filling,
//     as it may alone have what was stored meanwhile (`partial`).
//   - Being down changes nothing of this: a node that is back is found again where it was.
//   - Where all owners are filling, the chunks are in all holders together, and each fills from all the others.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_CHANGE_H_
#define KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_CHANGE_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "placement/topology/topology.h"

namespace kdn {

struct ClusterOptions {
  std::string name = "kdn";
  uint64_t id = 0;
  uint32_t partition_bits = kDefaultPartitionBits;
  uint32_t replicas = 2;
};

// A cluster without nodes, epoch 1. INVALID_ARGUMENT naming the option.
absl::StatusOr<TopologyPtr> NewCluster(const ClusterOptions& options);

class TopologyChange {
 public:
  explicit TopologyChange(const Topology& from);

  // A node that is new, or is back: by id. `node.slot` and `node.state` are not read. A node that is back keeps its
  // rows and takes address, zone, weight and capacity from `node`. If its incarnation is another, or it was down, its
  // rows are filling, save those that nobody else holds; it is JOINING when that is all of them, and DRAINING if it was
  // before. INVALID_ARGUMENT: as ValidateNode. RESOURCE_EXHAUSTED: kMaxNodes are known already.
  absl::Status Join(const NodeInfo& node);
  // Its session is over. Its place in rows and moves stays, so that its chunks are found again when it is back; its
  // extra copies of hot chunks are given up. NOT_FOUND.
  absl::Status Lost(std::string_view id);
  // NOT_FOUND; FAILED_PRECONDITION: it is down. `undo` of what is not draining changes nothing.
  absl::Status Drain(std::string_view id, bool undo);
  // NOT_FOUND; INVALID_ARGUMENT: not 1 to kMaxWeight.
  absl::Status SetWeight(std::string_view id, uint32_t weight);
  // Takes the node out. NOT_FOUND. FAILED_PRECONDITION without `force` when it holds a partition, as owner or leaving,
  // of which no other owner is settled and up: then its chunks may be held by it alone.
  absl::Status Forget(std::string_view id, bool force);
  // `id` now has all chunks of these partitions. What it does not fill is passed over, and so is what it cannot have
  // all of: while no other owner that has settled is up, and some other holder, owner or leaving, is down. (Tell again
  // later.) A partition that nobody fills any more settles: those that were leaving are free. NOT_FOUND.
  absl::Status Filled(std::string_view id, std::span<const Partition> partitions);

  // Gives every partition its owners: as many as there are replicas and nodes for them, in different zones where there
  // are enough zones, in proportion to the weights (each node within one of its share, as far as zones and replicas
  // allow), and with the least movement from the rows that are. Nodes that are draining, and those of `abandon` (down
  // for too long), are given up; other nodes that are down keep their rows. Among the ways that are equally good the
  // rendezvous hash of partition and node decides (docs/formats.md, "Assignment"), so that the same change has the same
  // outcome anywhere. A node of `abandon` that may be the only one with some chunks of a partition is
  // leaving it, so that they are found should it come back; Forget it to have done with that. Without any
  // node that could take partitions nothing is given up.
  void Rebalance(std::span<const std::string> abandon = {});

  // Replaces the hot chunks. Extras that own the chunk, are down, unknown, or beyond kMaxHotExtras are left out, and so
  // are chunks without extras and, of more than kMaxHotChunks, the last ones by key.
  void SetHot(std::map<ChunkKey, HotChunk> hot);

  // The changed topology, epoch + 1; the one it began with when nothing has changed.
  absl::StatusOr<TopologyPtr> Finish() &&;

 private:
  NodeInfo* Find(std::string_view id);
  bool IsUp(NodeSlot slot) const { return up_[slot]; }
  std::span<NodeSlot> Row(Partition partition);
  // Calls `visit(partition)` for each that the node owns or is leaving.
  template <typename Visit>
  void ForHeld(NodeSlot slot, Visit visit);
  bool MayHaveAll(NodeSlot slot, Partition partition);
  void Settle(Partition partition);
  void Replace(Partition partition, std::span<const NodeSlot> row, const std::vector<bool>& abandoned);
  void DropExtras(NodeSlot slot);
  void DropExtrasThatOwn();
  void Promote();

  TopologyParts parts_;
  TopologyPtr from_;
  std::vector<bool> up_;  // by slot
};

// What Rebalance aims at: partitions for each of `nodes`, in their order; exact, summing up to partitions × the copies
// that are possible. A node gets at most one copy of each partition, a zone at most its part of the replicas where
// there are enough zones. Nodes that are draining get none; those that are down get theirs.
std::vector<uint32_t> FairShares(std::span<const NodeInfo> nodes, uint32_t partitions, uint32_t replicas);

// Nodes for an extra copy of a hot chunk, best first: by rendezvous over key and node, none of its readers, none down
// or draining, zones without any reader first.
std::vector<NodeSlot> ExtraHolders(const Topology& topology, const ChunkKey& key, size_t count);

// A topology from a file, for clusters without placement daemons: docs/operations.md, "A cluster from a file". Same
// file, same topology, on every machine. INVALID_ARGUMENT naming the line.
//
//   cluster demo   # its name; its id comes from it, so that a changed file is still of the same cluster
//   epoch 2        # 1 unless told; raise it whenever the file changes
//   replicas 2     # 2 unless told
//   partitions 14  # 2^14 of them, unless told
//   node a 10.0.0.1:7401 zone=z1 weight=200
//   node b 10.0.0.2:7401
absl::StatusOr<TopologyPtr> ParseStaticTopology(std::string_view text);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_TOPOLOGY_CHANGE_H_
