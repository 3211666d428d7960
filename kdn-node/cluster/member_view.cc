#include "kdn-node/cluster/member_view.h"

#include <algorithm>

namespace kdn {

bool MemberView::Owns(Partition partition) const { return Contains(topology->Owners(partition), me); }

bool MemberView::Holds(Partition partition) const {
  if (Owns(partition)) return true;
  const Move* move = topology->MoveOf(partition);
  return move != nullptr && Contains(move->leaving, me);
}

bool MemberView::IsExtraHolderOf(const HotChunk& chunk) const { return Contains(chunk.extra, me); }

bool MemberView::CountsMissOf(const ChunkKey& key) const {
  const Topology::ReaderList readers = topology->Readers(key);
  if (readers.empty()) return true;
  return readers.slots()[readers.home == Topology::ReaderList::kNoHome ? 0 : readers.home] == me;
}

std::vector<const NodeInfo*> MemberView::SettledOthers(Partition partition) const {
  const Move* move = topology->MoveOf(partition);
  std::vector<const NodeInfo*> others;
  for (const NodeSlot slot : topology->Owners(partition)) {
    if (slot == me || (move != nullptr && Contains(move->filling, slot))) continue;
    const NodeInfo* node = topology->NodeAt(slot);
    if (node != nullptr && node->Serves()) others.push_back(node);
  }
  return others;
}

std::optional<MemberView> ViewOf(TopologyPtr topology, const MemberIdentity& identity) {
  if (topology == nullptr || topology->parts().cluster_id != identity.cluster_id()) return std::nullopt;
  const NodeInfo* node = topology->FindNode(identity.id());
  if (node == nullptr || !node->Serves() || node->incarnation != identity.incarnation()) return std::nullopt;
  return MemberView{.topology = std::move(topology), .me = node->slot};
}

}  // namespace kdn
