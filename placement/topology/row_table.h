// RowTable: who owns what while an assignment is made. Rows of owners by partition, and the partitions of each owner.
//
//   RowTable table(task);
//   if (table.MayOwn(partition, place, node)) table.Set(partition, place, node);
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_TOPOLOGY_ROW_TABLE_H_
#define KDN_PLACEMENT_TOPOLOGY_ROW_TABLE_H_

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "placement/topology/assignment.h"
#include "placement/topology/topology.h"

namespace kdn {

class RowTable {
 public:
  RowTable(std::vector<Assignee> nodes, std::vector<Owner> rows, uint32_t replicas, uint32_t zone_limit);

  uint32_t partitions() const { return static_cast<uint32_t>(rows_.size() / replicas_); }
  uint32_t replicas() const { return replicas_; }
  uint32_t zone_limit() const { return zone_limit_; }
  const std::vector<Assignee>& nodes() const { return nodes_; }
  std::span<const Owner> Row(Partition partition) const {
    return std::span(rows_).subspan(size_t{partition} * replicas_, replicas_);
  }
  // The last gained comes last.
  std::span<const Partition> RowsOf(Owner node) const { return rows_of_[node]; }
  uint32_t PlaceOf(Partition partition, Owner node) const;  // replicas(): it does not own it
  uint32_t InZone(Partition partition, uint32_t zone) const;

  // Whether the row could have `node` at `place`, instead of who is there: it is not in the row yet, and its zone has
  // room.
  bool MayOwn(Partition partition, uint32_t place, Owner node) const;
  // The same without regard to zones.
  bool IsFree(Partition partition, Owner node) const { return PlaceOf(partition, node) == replicas_; }

  void Set(Partition partition, uint32_t place, Owner node);  // kNobody: a hole

  // Lower is better.
  struct Rank {
    uint64_t rank = 0;
    uint64_t inverse_hash = 0;
    friend auto operator<=>(const Rank&, const Rank&) = default;  // NOLINT(modernize-use-nullptr): a false alarm
  };
  Rank RankOf(uint64_t partition_hash, Owner node) const;

  // Owners of each row by rendezvous hash, highest first, holes last.
  std::vector<Owner> Sorted() const;

 private:
  const std::vector<Assignee> nodes_;
  std::vector<Owner> rows_;
  const uint32_t replicas_;
  const uint32_t zone_limit_;
  bool equal_weights_ = true;
  std::vector<std::vector<Partition>> rows_of_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_ROW_TABLE_H_
