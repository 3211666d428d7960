#include "kdn-node/cluster/partition_sync.h"

#include <memory>
#include <vector>

#include "storage/base/status.h"

namespace kdn {

PartitionSync::Result PartitionSync::Run(Peer& peer, uint32_t bits, std::span<const Partition> partitions,
                                         MoveReason reason) {
  Result result;
  while (true) {
    const uint64_t kept = result.kept;
    const bool all = RunOnce(peer, bits, partitions, reason, result);
    // Where nothing of so many can be kept, there is no use in asking for the rest.
    if (all || !result.status.ok() || result.kept == kept) return result;
  }
}

bool PartitionSync::RunOnce(Peer& peer, uint32_t bits, std::span<const Partition> partitions, MoveReason reason,
                            Result& result) {
  if (partitions.empty()) return true;
  Cancellation* cancel = &pauses_.cancellation();
  const absl::StatusOr<std::vector<PartitionDigest>> theirs = peer.Digests(bits, partitions, cancel);
  result.status = theirs.status();
  if (!theirs.ok()) return true;
  // Older than theirs it could lack what came to both of us meanwhile; then that is fetched in vain.
  const std::shared_ptr<const PartitionIndex> ours = indexes_.Get();
  std::vector<Partition> differing;
  for (size_t i = 0; i < partitions.size(); ++i) {
    const PartitionDigest& digest = (*theirs)[i];
    if (digest.chunks > 0 && digest != ours->DigestOf(partitions[i], bits)) differing.push_back(partitions[i]);
  }
  result.differing = differing.size();
  if (differing.empty()) return true;

  std::vector<PeerChunk> missing;
  uint64_t missing_bytes = 0;
  bool all = true;
  result.status = peer.ListChunks(bits, differing, cancel, [&](const PeerChunk& chunk) {
    if (ours->Contains(chunk.key) || !puller_.HasRoomFor(chunk, missing_bytes)) return true;
    missing.push_back(chunk);
    missing_bytes += chunk.encoded_bytes;
    all = missing.size() < max_missing_;
    return all;
  });
  // Also of a list that broke off: what is here then need not be listed again.
  const ChunkPuller::Result pulled = puller_.Pull(peer, missing, reason);
  result.kept += pulled.kept;
  if (result.status.ok()) result.status = pulled.status;
  if (pulled.kept > 0) indexes_.Outdate();
  return all;
}

}  // namespace kdn
