// Questions to all nodes of a fleet at once, and their answers put together.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_FLEET_QUERIES_H_
#define KDN_KDN_CLIENT_CTL_FLEET_QUERIES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kdn-client/ctl/context.h"
#include "kdn/v1/admin.pb.h"
#include "storage/format/digest.h"

namespace kdn::ctl {

// Does `work` for every node that is up, at once. One failure for each node that did not answer, those that are down
// among them.
std::map<size_t, absl::Status> AskEach(Fleet& fleet, const std::function<absl::Status(size_t, FleetNode&)>& work);

// Spaces over all nodes: a chunk that two nodes hold counts twice.
struct SpaceList {
  std::map<SpaceId, v1::SpaceHeld> spaces;  // sums; `tiers` by level
  std::map<SpaceId, uint32_t> nodes;        // how many hold something of it
  // What each node said, by its place in Fleet::nodes(); also of spaces that it has a quota for, and no chunks of.
  std::map<size_t, v1::ListSpacesResponse> said = {};
  std::vector<std::string> unreachable = {};  // nodes that did not answer, and why
};
// UNAVAILABLE, DEADLINE_EXCEEDED: no node answered.
absl::StatusOr<SpaceList> ListSpaces(Context& context);

// What each node says of each of some chunks.
struct Sighting {
  size_t node = 0;  // in Fleet::nodes()
  v1::Explained said;
};
struct KeySightings {
  ChunkKey key;
  std::vector<Sighting> by_node;  // of all that answered
  // Of the most exact chunk among them; null: nobody holds it.
  const v1::HeldChunk* best() const;
  std::vector<size_t> holders() const;
};
struct Sightings {
  std::vector<KeySightings> keys;         // in order
  std::map<size_t, absl::Status> failed;  // by node; those that are down are among them
};
// UNAVAILABLE, DEADLINE_EXCEEDED: no node answered.
absl::StatusOr<Sightings> FindChunks(Context& context, std::span<const ChunkKey> keys);

// The space of each key, by what the nodes hold; keys that nobody holds are left out.
std::map<SpaceId, std::vector<ChunkKey>> BySpace(const Sightings& sightings);

// The first failure of all nodes, when none answered.
absl::Status NoneAnswered(const std::map<size_t, absl::Status>& failed);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_FLEET_QUERIES_H_
