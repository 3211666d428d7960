#include "bench/cluster_sim/placers.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

#include "placement/topology/rendezvous.h"
#include "placement/topology/topology_change.h"

namespace kdn::bench {

void Must(const absl::Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "cluster simulation: {}\n", std::string(status.message()));
  std::abort();
}

namespace {

constexpr double kWholeRange = 18446744073709551616.0;  // 2^64

uint64_t PositionOf(const ChunkKey& key) {
  uint64_t position = 0;
  for (size_t i = 0; i < sizeof position; ++i) position = position << 8 | key.bytes[i];
  return position;
}

double WidthOf(const Placement& placement, size_t span) {
  const bool last = span + 1 == placement.spans.size();
  const double end = last ? kWholeRange : static_cast<double>(placement.spans[span + 1].start);
  return end - static_cast<double>(placement.spans[span].start);
}

class KdnPlacer : public Placer {
 public:
  KdnPlacer(uint32_t partition_bits, uint32_t replicas) {
    auto made = NewCluster({.name = "bench", .id = 1, .partition_bits = partition_bits, .replicas = replicas});
    Must(made.status());
    topology_ = *made;
  }

  std::string_view name() const override { return "kdn"; }

  void SetNodes(const std::vector<NodeIndex>& nodes) override {
    std::set<std::string> wanted;
    for (const NodeIndex node : nodes) wanted.insert(NodeName(node));
    TopologyChange change(*topology_);
    for (const NodeIndex node : nodes) {
      if (topology_->FindNode(NodeName(node)) == nullptr) {
        NodeInfo info;
        info.id = NodeName(node);
        info.address = info.id + ":7401";
        Must(change.Join(info));
      }
    }
    std::vector<std::string> gone;
    for (const NodeInfo& node : topology_->parts().nodes) {
      if (!wanted.contains(node.id)) gone.push_back(node.id);
    }
    for (const std::string& id : gone) Must(change.Drain(id, /*undo=*/false));
    change.Rebalance();
    auto moving = std::move(change).Finish();
    Must(moving.status());
    // All is filled, and those that are empty go.
    TopologyChange settling(**moving);
    std::vector<Partition> all;
    for (const auto& [partition, move] : (*moving)->parts().moves) all.push_back(partition);
    for (const NodeInfo& node : (*moving)->parts().nodes) Must(settling.Filled(node.id, all));
    for (const std::string& id : gone) Must(settling.Forget(id, /*force=*/false));
    auto settled = std::move(settling).Finish();
    Must(settled.status());
    topology_ = *settled;
    index_of_.assign(kNoSlot, 0);
    for (const NodeInfo& node : topology_->parts().nodes) {
      index_of_[node.slot] = static_cast<NodeIndex>(std::stoul(node.id.substr(node.id.find('-') + 1)));
    }
  }

  Placement Snapshot() const override {
    Placement placement{.spans = {}, .replicas = topology_->replicas()};
    for (Partition partition = 0; partition < topology_->partitions(); ++partition) {
      Span span{.start = uint64_t{partition} << (64 - topology_->parts().partition_bits), .owners = {}};
      const auto owners = topology_->Owners(partition);
      for (size_t i = 0; i < owners.size(); ++i) span.owners[i] = index_of_[owners[i]];
      placement.spans.push_back(span);
    }
    return placement;
  }

  uint64_t LookUp(std::span<const ChunkKey> keys) const override {
    uint64_t sum = 0;
    for (const ChunkKey& key : keys) {
      const NodeList readers = topology_->Readers(key);
      for (const NodeSlot slot : readers.slots()) sum += slot;
    }
    return sum;
  }

 private:
  TopologyPtr topology_;
  std::vector<NodeIndex> index_of_;
};

// The `replicas` nodes with the highest hashes, best first.
template <typename HashOf>
void Highest(std::span<const NodeIndex> nodes, uint32_t replicas, HashOf hash_of, Span& span) {
  std::array<std::pair<uint64_t, NodeIndex>, kMaxReplicas> best{};
  uint32_t size = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    std::pair<uint64_t, NodeIndex> candidate(hash_of(i), nodes[i]);
    for (uint32_t place = 0; place < size; ++place) {
      if (candidate > best[place]) std::swap(candidate, best[place]);
    }
    if (size < replicas) best[size++] = candidate;
  }
  for (uint32_t i = 0; i < size; ++i) span.owners[i] = best[i].second;
}

std::vector<uint64_t> HashesOf(const std::vector<NodeIndex>& nodes) {
  std::vector<uint64_t> hashes;
  for (const NodeIndex node : nodes) hashes.push_back(NodeHash(NodeName(node)));
  return hashes;
}

class RendezvousPlacer : public Placer {
 public:
  RendezvousPlacer(uint32_t partition_bits, uint32_t replicas) : bits_(partition_bits), replicas_(replicas) {}

  std::string_view name() const override { return "rendezvous by partition"; }

  void SetNodes(const std::vector<NodeIndex>& nodes) override {
    const std::vector<uint64_t> hashes = HashesOf(nodes);
    spans_.resize(size_t{1} << bits_);
    for (uint64_t partition = 0; partition < spans_.size(); ++partition) {
      spans_[partition].start = partition << (64 - bits_);
      const uint64_t hash = ThingHash(partition);
      Highest(
          nodes, replicas_, [&](size_t i) { return PairHash(hashes[i], hash); }, spans_[partition]);
    }
  }

  Placement Snapshot() const override { return {.spans = spans_, .replicas = replicas_}; }

  uint64_t LookUp(std::span<const ChunkKey> keys) const override {
    uint64_t sum = 0;
    for (const ChunkKey& key : keys) {
      const Span& span = spans_[PositionOf(key) >> (64 - bits_)];
      for (uint32_t i = 0; i < replicas_; ++i) sum += span.owners[i];
    }
    return sum;
  }

 private:
  const uint32_t bits_;
  const uint32_t replicas_;
  std::vector<Span> spans_;
};

class RingPlacer : public Placer {
 public:
  RingPlacer(uint32_t virtual_nodes, uint32_t replicas)
      : name_(fmt::format("ring of {} virtual nodes", virtual_nodes)),
        virtual_nodes_(virtual_nodes),
        replicas_(replicas) {}

  std::string_view name() const override { return name_; }

  void SetNodes(const std::vector<NodeIndex>& nodes) override {
    ring_.clear();
    nodes_ = nodes.size();
    for (const NodeIndex node : nodes) {
      const uint64_t hash = NodeHash(NodeName(node));
      for (uint32_t i = 0; i < virtual_nodes_; ++i) ring_.emplace_back(PairHash(hash, ThingHash(i)), node);
    }
    std::sort(ring_.begin(), ring_.end());
  }

  Placement Snapshot() const override {
    Placement placement{.spans = {}, .replicas = replicas_};
    // Keys after the last place belong to the first.
    placement.spans.push_back(SpanAt(0));
    for (const auto& [position, node] : ring_) placement.spans.push_back(SpanAt(position + 1));
    return placement;
  }

  uint64_t LookUp(std::span<const ChunkKey> keys) const override {
    uint64_t sum = 0;
    for (const ChunkKey& key : keys) {
      const Span span = SpanAt(PositionOf(key));
      for (uint32_t i = 0; i < replicas_; ++i) sum += span.owners[i];
    }
    return sum;
  }

 private:
  Span SpanAt(uint64_t position) const {
    Span span{.start = position, .owners = {}};
    auto at = std::lower_bound(ring_.begin(), ring_.end(), std::pair(position, NodeIndex{0}));
    const uint32_t wanted = static_cast<uint32_t>(std::min<size_t>(replicas_, nodes_));
    for (uint32_t found = 0; found < wanted; ++at) {
      if (at == ring_.end()) at = ring_.begin();
      const auto end = span.owners.begin() + found;
      if (std::find(span.owners.begin(), end, at->second) == end) span.owners[found++] = at->second;
    }
    return span;
  }

  const std::string name_;
  const uint32_t virtual_nodes_;
  const uint32_t replicas_;
  size_t nodes_ = 0;
  std::vector<std::pair<uint64_t, NodeIndex>> ring_;
};

class KeyRendezvousPlacer : public Placer {
 public:
  explicit KeyRendezvousPlacer(uint32_t replicas) : replicas_(replicas) {}

  std::string_view name() const override { return "rendezvous by key"; }

  void SetNodes(const std::vector<NodeIndex>& nodes) override {
    nodes_ = nodes;
    hashes_ = HashesOf(nodes);
  }

  Placement Snapshot() const override { return {}; }

  uint64_t LookUp(std::span<const ChunkKey> keys) const override {
    uint64_t sum = 0;
    for (const ChunkKey& key : keys) {
      const uint64_t hash = ThingHash(PositionOf(key));
      Span span;
      Highest(
          nodes_, replicas_, [&](size_t i) { return PairHash(hashes_[i], hash); }, span);
      for (uint32_t i = 0; i < replicas_; ++i) sum += span.owners[i];
    }
    return sum;
  }

 private:
  const uint32_t replicas_;
  std::vector<NodeIndex> nodes_;
  std::vector<uint64_t> hashes_;
};

}  // namespace

std::string NodeName(NodeIndex node) { return fmt::format("node-{}", node); }

std::vector<double> SharesOf(const Placement& placement, size_t nodes) {
  std::vector<double> shares(nodes);
  for (size_t span = 0; span < placement.spans.size(); ++span) {
    const double share = WidthOf(placement, span) / kWholeRange / placement.replicas;
    for (uint32_t i = 0; i < placement.replicas; ++i) shares[placement.spans[span].owners[i]] += share;
  }
  return shares;
}

double Moved(const Placement& before, const Placement& after) {
  double moved = 0;
  size_t b = 0;
  size_t a = 0;
  double start = 0;
  while (start < kWholeRange) {
    const double end_b = static_cast<double>(before.spans[b].start) + WidthOf(before, b);
    const double end_a = static_cast<double>(after.spans[a].start) + WidthOf(after, a);
    const double end = std::min(end_b, end_a);
    const auto& old = before.spans[b].owners;
    const auto old_end = old.begin() + before.replicas;
    for (uint32_t i = 0; i < after.replicas; ++i) {
      if (std::find(old.begin(), old_end, after.spans[a].owners[i]) == old_end) moved += end - start;
    }
    if (end_b <= end && b + 1 < before.spans.size()) ++b;
    if (end_a <= end && a + 1 < after.spans.size()) ++a;
    start = end;
  }
  return moved / kWholeRange / after.replicas;
}

std::unique_ptr<Placer> MakeKdnPlacer(uint32_t partition_bits, uint32_t replicas) {
  return std::make_unique<KdnPlacer>(partition_bits, replicas);
}
std::unique_ptr<Placer> MakeRendezvousPlacer(uint32_t partition_bits, uint32_t replicas) {
  return std::make_unique<RendezvousPlacer>(partition_bits, replicas);
}
std::unique_ptr<Placer> MakeRingPlacer(uint32_t virtual_nodes, uint32_t replicas) {
  return std::make_unique<RingPlacer>(virtual_nodes, replicas);
}
std::unique_ptr<Placer> MakeKeyRendezvousPlacer(uint32_t replicas) {
  return std::make_unique<KeyRendezvousPlacer>(replicas);
}

}  // namespace kdn::bench
