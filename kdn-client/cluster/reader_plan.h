// Which reader is asked for which chunk. Of the settled readers, those of the own zone first, the better of two: the
// chunk's home, unless the other is twice as good, and one that is drawn (two that are drawn, where there is no home);
// then those that may hold the chunk all the same; last of all, nodes that failed a moment ago.
//
// A chunk has a home so that those who ask for it ask the same node while that is as good as another: it is then in the
// memory of one node and not of all that own it, what was looked up or prefetched there is fetched there, and a request
// is counted once.
//
//   ReaderPlan plan = PlanReaders(*view, readers, asked);
//   for (NodeGroup& group : plan.groups) …ask group.slot for group.asked…
//
// Thread-safety: a pure function, but for the nodes' measurements and the dice.
#ifndef KDN_KDN_CLIENT_CLUSTER_READER_PLAN_H_
#define KDN_KDN_CLIENT_CLUSTER_READER_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kdn-client/cluster/node_pool.h"
#include "placement/topology/topology.h"
#include "storage/chunk.h"

namespace kdn {

// Readers by their place in a chunk's list.
using ReaderMask = uint32_t;
static_assert(NodeList::kCapacity <= 32);

// A chunk that is to be asked for.
struct SoughtChunk {
  uint32_t chunk = 0;    // of the call's keys
  ReaderMask tried = 0;  // who has been asked
  Miss miss = {};        // what became of that
};

// Chunks that one node is asked for.
struct NodeGroup {
  NodeSlot slot = kNoSlot;
  std::vector<uint32_t> at = {};        // where each was among those that were to be asked
  std::vector<SoughtChunk> asked = {};  // with this node among those that were tried
  std::vector<ReaderMask> self = {};    // this node, in each chunk's list
  bool has_others = false;              // at least one of them could be asked from another node
};

struct ReaderPlan {
  std::vector<NodeGroup> groups;
  std::vector<uint32_t> stranded;  // of those that were to be asked: all readers have been tried
};

// `readers` are those of the call's keys.
ReaderPlan PlanReaders(const TopologyView& view, std::span<const Topology::ReaderList> readers,
                       std::span<const SoughtChunk> asked);

inline ReaderMask AllReaders(const Topology::ReaderList& readers) {
  return static_cast<ReaderMask>((uint64_t{1} << readers.size()) - 1);
}

// Whether another reader could know better.
bool MayBeElsewhere(const Miss& miss);
// Whether a node said it, and held the chunk not, or not well enough.
bool IsAnswer(const Miss& miss);
// Of two misses of one chunk, the one that tells more: that it was not found says least.
const Miss& Telling(const Miss& a, const Miss& b);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_READER_PLAN_H_
