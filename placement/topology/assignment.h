// Assign: the table planner. Gives every partition its owners, each node its quota, no zone too much of one partition,
// and moves as little as it can from the rows that are.
//
//   AssignmentTask task;                     // nodes, and the rows as they are, without those that give up
//   std::vector<Owner> rows = Assign(task);
//
// In this order, each step deciding by the rendezvous rank of node and partition:
//   1. a row that has too many owners in one zone gives up one;
//   2. missing owners are taken from nodes below their quota;
//   3. nodes that are still below their quota take rows from nodes above theirs;
//   4. what neither could do because of zones, or because the only candidates own the row already, is done by a chain
//   of
//      such steps: a node takes the row and gives up another one instead, and so on to a node below its quota;
//   5. a row that is short even so takes the node that is least above its quota.
//
// Thread-safety: a pure function; same task, same rows.
#ifndef KDN_PLACEMENT_TOPOLOGY_ASSIGNMENT_H_
#define KDN_PLACEMENT_TOPOLOGY_ASSIGNMENT_H_

#include <cstdint>
#include <map>
#include <vector>

#include "placement/topology/topology.h"

namespace kdn {

using Owner = uint16_t;  // index of an Assignee

inline constexpr Owner kNobody = 0xffff;

struct Assignee {
  uint64_t hash = 0;  // NodeHash of its id
  uint32_t zone = 0;  // number of its zone, from 0
  uint32_t weight = 1;
  bool takes = true;  // false: it keeps its rows, and is given none
};

struct AssignmentTask {
  std::vector<Assignee> nodes;  // by id
  uint32_t replicas = 1;
  std::vector<Owner> rows;  // `replicas` for each partition
  // As rows: 1 where the owner does not have the chunks yet, so that taking the row from it costs nothing.
  std::vector<uint8_t> unfilled;
  std::map<Partition, std::vector<Owner>> formers;  // who else holds chunks of a partition
};

// Rows sorted by rendezvous hash, kNobody last: only where there are fewer nodes than replicas.
std::vector<Owner> Assign(const AssignmentTask& task);

}  // namespace kdn

#endif  // KDN_PLACEMENT_TOPOLOGY_ASSIGNMENT_H_
