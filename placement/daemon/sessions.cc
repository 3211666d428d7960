#include "placement/daemon/sessions.h"

#include <optional>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kRegisterAttempts = 4;  // when others register the same node at the same time

absl::Status SessionOver(const std::string& id) {
  return NotFound("node '{}' has no such session: it is over, or another process took it; register again", id);
}

}  // namespace

absl::StatusOr<NodeRecord> Sessions::Open(const v1::RegisterRequest& request, absl::Time deadline) {
  const TopologyPtr topology = view_.topology().topology;
  if (topology == nullptr) return Unavailable("the cluster has no topology yet; try again");
  if (request.cluster() != topology->cluster()) {
    return FailedPrecondition(
        "this is the cluster '{}', and the node wants to join '{}'; mend its flags, or give it the "
        "addresses of its own placement daemons",
        topology->cluster(), request.cluster());
  }
  const uint64_t id = topology->parts().cluster_id;
  if (request.cluster_id() != 0 && request.cluster_id() != id) {
    return FailedPrecondition(
        "the node's data belong to another cluster of the same name (id {:016x}; this one is {:016x}); give the node "
        "an empty "
        "disk, or the addresses of its own placement daemons",
        request.cluster_id(), id);
  }
  KDN_ASSIGN_OR_RETURN(const NodeInfo node, NodeFromPeer(request.node()));
  KDN_ASSIGN_OR_RETURN(const LeaseId lease, registry_.Grant(ttl_, deadline));
  LeaseId replaced = 0;
  absl::StatusOr<NodeRecord> record = Put(node, lease, deadline, replaced);
  if (!record.ok()) {
    End(lease, deadline);
    return record.status();
  }
  if (replaced != 0) End(replaced, deadline);
  return record;
}

absl::StatusOr<NodeRecord> Sessions::Put(const NodeInfo& node, LeaseId lease, absl::Time deadline, LeaseId& replaced) {
  const std::string key = NodeKey(node.id);
  Seen before;
  before.node = view_.FindNode(node.id);
  if (before.node.has_value()) before.revision = before.node->revision;
  absl::Status last;
  for (int attempt = 0; attempt < kRegisterAttempts; ++attempt) {
    // What is known may be old; only the registry can say that another one lives.
    if (attempt > 0 || (before.node.has_value() && before.node->node.address != node.address)) {
      KDN_ASSIGN_OR_RETURN(before, See(node.id, deadline));
    }
    if (before.node.has_value() && before.node->node.address != node.address) {
      return absl::AlreadyExistsError(fmt::format(
          "a node '{}' at {} is alive; give this one another id, or stop that one (its session ends {} after its last "
          "heartbeat)",
          node.id, before.node->node.address, absl::FormatDuration(ttl_)));
    }
    Record record{.key = key, .value = EncodeNode(node), .lease = lease};
    Change change;
    change.conditions.push_back({.key = key, .revision = before.revision});
    change.puts.push_back({.key = key, .value = record.value, .lease = lease});
    const absl::StatusOr<Revision> revision = registry_.Commit(change, deadline);
    if (revision.ok()) {
      record.revision = *revision;
      view_.Learn(record);
      if (before.node.has_value()) replaced = before.node->session;
      return NodeRecord{.node = node, .session = lease, .revision = *revision};
    }
    if (!absl::IsAborted(revision.status())) return revision.status();
    last = revision.status();
  }
  return Unavailable("node '{}' is being registered by others at the same time: {}; try again", node.id,
                     MessageOf(last));
}

absl::StatusOr<Sessions::Seen> Sessions::See(const std::string& id, absl::Time deadline) {
  const std::string key = NodeKey(id);
  KDN_ASSIGN_OR_RETURN(const Snapshot snapshot, registry_.Read(key, deadline));
  const Record* record = snapshot.Find(key);
  if (record == nullptr) return Seen{};
  view_.Learn(*record);
  Seen seen{.revision = record->revision};
  // A damaged record is nobody's, and may be written over.
  if (absl::StatusOr<NodeRecord> node = DecodeNode(*record); node.ok()) seen.node = *std::move(node);
  return seen;
}

absl::StatusOr<NodeRecord> Sessions::Find(const std::string& id, absl::Time deadline) {
  KDN_ASSIGN_OR_RETURN(const Seen seen, See(id, deadline));
  if (!seen.node.has_value()) return SessionOver(id);
  return *seen.node;
}

absl::StatusOr<absl::Duration> Sessions::Renew(const std::string& id, LeaseId session, absl::Time deadline) {
  const std::optional<NodeRecord> known = view_.FindNode(id);
  if (!known.has_value() || known->session != session) {
    // It may have registered with another daemon just now.
    KDN_ASSIGN_OR_RETURN(const NodeRecord now, Find(id, deadline));
    if (now.session != session) return SessionOver(id);
  }
  const absl::StatusOr<absl::Duration> left = registry_.KeepAlive(session, deadline);
  return absl::IsNotFound(left.status()) ? SessionOver(id) : left;
}

void Sessions::End(LeaseId session, absl::Time deadline) { (void)registry_.Revoke(session, deadline); }

}  // namespace kdn
