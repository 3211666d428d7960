#include "bench/cluster_sim/sim_cluster.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <utility>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"

namespace kdn::bench {
namespace {

uint64_t Milliseconds(absl::Duration duration) { return static_cast<uint64_t>(absl::ToInt64Milliseconds(duration)); }

}  // namespace

SimCluster::SimCluster(const SimOptions& options, std::span<const ChunkKey> keys)
    : options_(options), keys_(keys), index_of_(kNoSlot) {
  auto made = NewCluster(
      {.name = "simulated", .id = 1, .partition_bits = options.partition_bits, .replicas = options.replicas});
  Must(made.status());
  topology_ = *made;
}

// ---- events ----

void SimCluster::Join(NodeIndex node) {
  if (nodes_.size() <= node) nodes_.resize(node + 1);
  nodes_[node].zone = fmt::format("zone-{}", node % options_.zones);
  Return(node, /*empty=*/true);
}

void SimCluster::Return(NodeIndex node, bool empty) {
  Node& returns = nodes_[node];
  if (empty) returns.cache = std::make_unique<SimCache>(options_.policy, options_.node_chunks, keys_);
  returns.alive = true;
  returns.incarnation = ++incarnations_;
  Later([this, node](TopologyChange& change) {
    NodeInfo info;
    info.id = NodeName(node);
    info.address = info.id + ":7401";
    info.zone = nodes_[node].zone;
    info.weight = nodes_[node].weight;
    info.incarnation = nodes_[node].incarnation;
    Must(change.Join(info));
  });
  abandoned_.erase(NodeName(node));
  RebalanceSoon();
}

void SimCluster::Kill(NodeIndex node) {
  nodes_[node].alive = false;
  const uint64_t incarnation = nodes_[node].incarnation;
  const auto is_gone = [this, node, incarnation] {
    return !nodes_[node].alive && nodes_[node].incarnation == incarnation;
  };
  const uint64_t lost_ms = now_ms_ + Milliseconds(options_.placement.node_ttl);
  At(lost_ms, [this, node, is_gone] {
    if (!is_gone()) return;
    Later([node](TopologyChange& change) { Must(change.Lost(NodeName(node))); });
  });
  At(lost_ms + Milliseconds(options_.placement.repair_after), [this, node, is_gone] {
    if (!is_gone()) return;
    abandoned_.insert(NodeName(node));
    RebalanceSoon();
  });
}

void SimCluster::Drain(NodeIndex node) {
  Later([node](TopologyChange& change) { Must(change.Drain(NodeName(node), /*undo=*/false)); });
  RebalanceSoon();
}

void SimCluster::SetWeight(NodeIndex node, uint32_t weight) {
  nodes_[node].weight = weight;
  Later([node, weight](TopologyChange& change) { Must(change.SetWeight(NodeName(node), weight)); });
  RebalanceSoon();
}

// ---- the coordinator's part ----

void SimCluster::RebalanceSoon() { rebalance_at_ = now_ms_ + Milliseconds(options_.placement.settle); }

void SimCluster::Commit(const std::function<void(TopologyChange&)>& edit) {
  TopologyChange change(*topology_);
  edit(change);
  auto next = std::move(change).Finish();
  Must(next.status());
  if (*next == topology_) return;
  const v1::TopologyUpdate update = MakeUpdate(topology_.get(), **next);
  const auto nodes_up =
      static_cast<uint64_t>(std::count_if(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.alive; }));
  ++counts_.epochs;
  counts_.updates += nodes_up + options_.watchers;
  counts_.update_bytes += (nodes_up + options_.watchers) * update.ByteSizeLong();
  topology_ = *next;
}

void SimCluster::Advance(uint64_t now_ms) {
  while (now_ms_ + kTickMs <= now_ms) {
    now_ms_ += kTickMs;
    Tick();
  }
}

void SimCluster::Tick() {
  std::vector<Due> now;
  std::vector<Due> later;
  for (Due& due : due_) (due.at_ms <= now_ms_ ? now : later).push_back(std::move(due));
  due_ = std::move(later);
  for (const Due& due : now) due.action();
  if (!edits_.empty()) {
    const auto edits = std::exchange(edits_, {});
    Commit([&](TopologyChange& change) {
      for (const auto& edit : edits) edit(change);
    });
    for (NodeIndex node = 0; node < nodes_.size(); ++node) {
      const NodeInfo* known = topology_->FindNode(NodeName(node));
      if (known != nullptr) index_of_[known->slot] = node;
    }
  }
  if (rebalance_at_.has_value() && *rebalance_at_ <= now_ms_) {
    rebalance_at_.reset();
    const std::vector<std::string> abandoned(abandoned_.begin(), abandoned_.end());
    Commit([&](TopologyChange& change) { change.Rebalance(abandoned); });
  }
  Fill();
  const auto alive =
      static_cast<uint64_t>(std::count_if(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.alive; }));
  // A node speaks three times in its session's time.
  counts_.heartbeats += alive * 3 * kTickMs / Milliseconds(options_.placement.node_ttl);
  if (now_ms_ >= next_load_ms_) {
    counts_.load_records += alive;
    next_load_ms_ = now_ms_ + Milliseconds(options_.placement.load_interval);
  }
}

uint64_t SimCluster::NodesUp() const {
  const auto up = std::count_if(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.alive; });
  return static_cast<uint64_t>(up);
}

// ---- the nodes' part ----

std::vector<NodeSlot> SimCluster::HoldersOf(Partition partition) const {
  const std::span<const NodeSlot> owners = topology_->Owners(partition);
  std::vector<NodeSlot> holders(owners.begin(), owners.end());
  if (const Move* move = topology_->MoveOf(partition)) {
    holders.insert(holders.end(), move->leaving.begin(), move->leaving.end());
  }
  return holders;
}

uint64_t SimCluster::ChunksIn(Partition partition) const {
  std::set<ChunkIndex> chunks;
  for (const NodeSlot slot : HoldersOf(partition)) {
    if (!NodeIn(slot).alive) continue;
    const std::vector<ChunkIndex> held = NodeIn(slot).cache->ChunksOf(partition);
    chunks.insert(held.begin(), held.end());
  }
  return chunks.size();
}

void SimCluster::Fill() {
  if (topology_->parts().moves.empty()) return;
  std::map<NodeIndex, std::vector<Partition>> wanted;
  for (const auto& [partition, move] : topology_->parts().moves) {
    for (const NodeSlot slot : move.filling) {
      if (NodeIn(slot).alive) wanted[index_of_[slot]].push_back(partition);
    }
  }
  const double a_tick = options_.fill_rate * kTickMs / 1000;
  std::map<NodeIndex, std::vector<Partition>> filled;
  for (const auto& [node, partitions] : wanted) {
    nodes_[node].fill_credit = std::min(nodes_[node].fill_credit + a_tick, a_tick);
    for (const Partition partition : partitions) {
      if (nodes_[node].fill_credit <= 0) break;
      FillPartition(node, partition);
      filled[node].push_back(partition);
    }
  }
  if (filled.empty()) return;
  const TopologyPtr before = topology_;
  Commit([&](TopologyChange& change) {
    for (const auto& [node, partitions] : filled) Must(change.Filled(NodeName(node), partitions));
  });
  for (const auto& [partition, move] : before->parts().moves) {
    const Move* left = topology_->MoveOf(partition);
    counts_.filled += move.filling.size() - (left == nullptr ? 0 : left->filling.size());
    if (left != nullptr) continue;
    // Who no longer holds a partition lets go of it.
    for (const NodeSlot slot : move.leaving) {
      NodeIn(slot).cache->Drop(partition);
    }
  }
}

// Copies what the others that are up have of it. Always all of it: a partition is small.
void SimCluster::FillPartition(NodeIndex node, Partition partition) {
  for (const NodeSlot slot : HoldersOf(partition)) {
    const Node& holder = NodeIn(slot);
    if (index_of_[slot] == node || !holder.alive) continue;
    for (const ChunkIndex chunk : holder.cache->ChunksOf(partition)) {
      if (nodes_[node].cache->Contains(chunk)) continue;
      (void)nodes_[node].cache->Put(chunk, partition);
      ++counts_.copied;
      nodes_[node].fill_credit -= 1;
    }
  }
}

bool SimCluster::Fetch(ChunkIndex chunk) {
  ++counts_.asked;
  Topology::ReaderList readers = topology_->Readers(keys_[chunk]);
  std::vector<NodeSlot> order(readers.slots().begin(), readers.slots().end());
  std::shuffle(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(readers.settled), random_);
  for (size_t i = 0; i < order.size(); ++i) {
    const Node& node = NodeIn(order[i]);
    if (!node.alive) {
      ++counts_.asked_dead;
      continue;
    }
    if (!node.cache->Contains(chunk)) continue;
    node.cache->Use(chunk);
    ++counts_.found;
    if (i > 0) ++counts_.found_elsewhere;
    return true;
  }
  return false;
}

void SimCluster::Store(ChunkIndex chunk) {
  const Partition partition = topology_->PartitionOf(keys_[chunk]);
  const NodeList writers = topology_->Writers(keys_[chunk]);
  for (const NodeSlot slot : writers.slots()) {
    if (NodeIn(slot).alive) (void)NodeIn(slot).cache->Put(chunk, partition);
  }
}

std::vector<uint64_t> SimCluster::HeldByNode() const {
  std::vector<uint64_t> held;
  for (const Node& node : nodes_) {
    if (node.alive) held.push_back(node.cache->size());
  }
  return held;
}

}  // namespace kdn::bench
