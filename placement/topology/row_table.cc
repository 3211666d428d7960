#include "placement/topology/row_table.h"

#include <algorithm>
#include <utility>

#include "placement/topology/rendezvous.h"

namespace kdn {

RowTable::RowTable(std::vector<Assignee> nodes, std::vector<Owner> rows, uint32_t replicas, uint32_t zone_limit)
    : nodes_(std::move(nodes)),
      rows_(std::move(rows)),
      replicas_(replicas),
      zone_limit_(zone_limit),
      rows_of_(nodes_.size()) {
  for (const Assignee& node : nodes_) equal_weights_ &= node.weight == nodes_.front().weight;
  for (size_t at = 0; at < rows_.size(); ++at) {
    if (rows_[at] != kNobody) rows_of_[rows_[at]].push_back(static_cast<Partition>(at / replicas_));
  }
}

uint32_t RowTable::PlaceOf(Partition partition, Owner node) const {
  const std::span<const Owner> row = Row(partition);
  return static_cast<uint32_t>(std::find(row.begin(), row.end(), node) - row.begin());
}

uint32_t RowTable::InZone(Partition partition, uint32_t zone) const {
  uint32_t count = 0;
  for (const Owner owner : Row(partition)) count += owner != kNobody && nodes_[owner].zone == zone ? 1 : 0;
  return count;
}

bool RowTable::MayOwn(Partition partition, uint32_t place, Owner node) const {
  const Owner* row = rows_.data() + size_t{partition} * replicas_;
  const uint32_t zone = nodes_[node].zone;
  uint32_t in_zone = 0;
  for (uint32_t i = 0; i < replicas_; ++i) {
    if (row[i] == node) return false;
    if (i != place && row[i] != kNobody && nodes_[row[i]].zone == zone) ++in_zone;
  }
  return in_zone < zone_limit_;
}

void RowTable::Set(Partition partition, uint32_t place, Owner node) {
  Owner& owner = rows_[size_t{partition} * replicas_ + place];
  if (owner != kNobody) {
    std::vector<Partition>& rows = rows_of_[owner];
    rows.erase(std::find(rows.begin(), rows.end(), partition));
  }
  owner = node;
  if (node != kNobody) rows_of_[node].push_back(partition);
}

RowTable::Rank RowTable::RankOf(uint64_t partition_hash, Owner node) const {
  const uint64_t hash = PairHash(nodes_[node].hash, partition_hash);
  // With equal weights the rank falls as the hash rises, so that the hash alone gives the same order.
  return {.rank = equal_weights_ ? 0 : WeightedRank(hash, nodes_[node].weight), .inverse_hash = ~hash};
}

std::vector<Owner> RowTable::Sorted() const {
  std::vector<Owner> sorted = rows_;
  for (Partition partition = 0; partition < partitions(); ++partition) {
    const uint64_t hash = ThingHash(partition);
    const auto row = std::span(sorted).subspan(size_t{partition} * replicas_, replicas_);
    std::sort(row.begin(), row.end(), [&](Owner a, Owner b) {
      if (a == kNobody || b == kNobody) return a != kNobody && b == kNobody;
      const uint64_t hash_a = PairHash(nodes_[a].hash, hash);
      const uint64_t hash_b = PairHash(nodes_[b].hash, hash);
      return hash_a != hash_b ? hash_a > hash_b : a < b;
    });
  }
  return sorted;
}

}  // namespace kdn
