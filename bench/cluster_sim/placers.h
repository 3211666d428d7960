// Placer: a way to spread keys over nodes, so that ways can be compared: KDN's table, and plain rendezvous hashing and
// a ring of virtual nodes as they are found elsewhere. Each is a step function of a key's first 64 bits, so that shares
// and movement are computed exactly, without drawing keys.
//
//   const auto placer = MakeKdnPlacer(/*partition_bits=*/14, /*replicas=*/2);
//   placer->SetNodes(five);
//   const Placement before = placer->Snapshot();
//   placer->SetNodes(six);
//   const double moved = Moved(before, placer->Snapshot());
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_CLUSTER_SIM_PLACERS_H_
#define KDN_BENCH_CLUSTER_SIM_PLACERS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "placement/topology/topology.h"

namespace kdn::bench {

using NodeIndex = uint32_t;  // in names "node-0", "node-1", …; nodes keep theirs

std::string NodeName(NodeIndex node);

// Ends the process where the simulation itself is mistaken.
void Must(const absl::Status& status);

// Owners of the keys from `start` on, up to the next one's.
struct Span {
  uint64_t start = 0;
  std::array<NodeIndex, kMaxReplicas> owners{};
};

// Who owns what: spans by start, the first at 0; of each, `replicas` owners.
struct Placement {
  std::vector<Span> spans;
  uint32_t replicas = 0;
};

// Each node's part of all copies, by index; sums up to 1.
std::vector<double> SharesOf(const Placement& placement, size_t nodes);
// Part of all copies that are somewhere else in `after`.
double Moved(const Placement& before, const Placement& after);

class Placer {
 public:
  virtual ~Placer() = default;
  virtual std::string_view name() const = 0;
  // These nodes from now on; those that are gone are drained first, where that makes a difference.
  virtual void SetNodes(const std::vector<NodeIndex>& nodes) = 0;
  virtual Placement Snapshot() const = 0;
  // Adds up the owners of keys, as a client would look them up; the sum keeps the work from being left out.
  virtual uint64_t LookUp(std::span<const ChunkKey> keys) const = 0;
};

std::unique_ptr<Placer> MakeKdnPlacer(uint32_t partition_bits, uint32_t replicas);
// The nodes of the highest hashes, for each of as many partitions.
std::unique_ptr<Placer> MakeRendezvousPlacer(uint32_t partition_bits, uint32_t replicas);
// The next nodes clockwise, each at `virtual_nodes` places.
std::unique_ptr<Placer> MakeRingPlacer(uint32_t virtual_nodes, uint32_t replicas);
// The nodes of the highest hashes for the key itself. Perfectly balanced, and as slow as there are nodes; has no
// snapshot.
std::unique_ptr<Placer> MakeKeyRendezvousPlacer(uint32_t replicas);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CLUSTER_SIM_PLACERS_H_
