#include "placement/daemon/cluster_view.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

// Deleted records are remembered, so that what is told of them late is known to be old; this many, then the next
// snapshot or a sweep clears them.
constexpr size_t kMaxRemembered = 65'536;

std::string IdOf(std::string_view key, std::string_view prefix) { return std::string(key.substr(prefix.size())); }

}  // namespace

struct ClusterView::Told {
  TopologyPtr topology;
  bool change = false;
  std::vector<std::string> gone;
  std::vector<std::pair<std::string, std::shared_ptr<const v1::NodeLoad>>> loads;
};

ClusterView::ClusterView(std::string cluster, Callbacks callbacks)
    : callbacks_(std::move(callbacks)), log_(std::move(cluster)) {}

void ClusterView::OnSnapshot(const Snapshot& snapshot) {
  Told told;
  {
    MutexLock lock(mu_);
    TakeAll("", snapshot, told);
    told.change |= !synced_;
    synced_ = true;
  }
  Tell(told);
}

void ClusterView::OnEvents(const std::vector<RegistryEvent>& events, Revision) {
  Told told;
  {
    MutexLock lock(mu_);
    for (const RegistryEvent& event : events) {
      if (event.deleted) {
        TakeDeletion(event.record.key, event.record.revision, told);
      } else {
        TakeRecord(event.record, told);
      }
    }
  }
  Tell(told);
}

void ClusterView::OnLost(const absl::Status& why) {
  spdlog::debug("the registry's watch is broken, and is tried again: {}", MessageOf(why));
}

void ClusterView::Learn(const Record& record) {
  Told told;
  {
    MutexLock lock(mu_);
    TakeRecord(record, told);
  }
  Tell(told);
}

void ClusterView::LearnOwnTopology(TopologyPtr topology, Revision revision) {
  Told told;
  {
    MutexLock lock(mu_);
    const TopologyPtr before = log_.newest();
    log_.TakeOwn(std::move(topology), revision);
    if (log_.newest() != before) told.topology = log_.newest();
    told.change = told.topology != nullptr;
  }
  Tell(told);
}

void ClusterView::Refresh(std::string_view prefix, const Snapshot& snapshot) {
  Told told;
  {
    MutexLock lock(mu_);
    TakeAll(prefix, snapshot, told);
  }
  Tell(told);
}

void ClusterView::Forget(const std::string& key, Revision revision) {
  Told told;
  {
    MutexLock lock(mu_);
    TakeDeletion(key, revision, told);
  }
  Tell(told);
}

void ClusterView::TakeRecord(const Record& record, Told& told) {
  const std::string_view key = record.key;
  if (key == kTopologyKey) {
    const TopologyPtr before = log_.newest();
    const bool was_fine = log_.fault().ok();
    Complain(log_.Take(record));
    if (log_.newest() != before) told.topology = log_.newest();
    told.change |= log_.newest() != before || log_.fault().ok() != was_fine;
  } else if (key.starts_with(kNodesPrefix)) {
    Known& known = nodes_[IdOf(key, kNodesPrefix)];
    if (record.revision <= known.revision) return;
    known = {.node = std::nullopt, .revision = record.revision};
    absl::StatusOr<NodeRecord> node = DecodeNode(record);
    if (node.ok()) {
      known.node = *std::move(node);
    } else {
      spdlog::error("{}", MessageOf(node.status()));
    }
    told.change = true;
  } else if (key.starts_with(kLoadPrefix)) {
    auto load = std::make_shared<v1::NodeLoad>();
    if (load->ParseFromString(record.value) && CheckLoad(*load).ok()) {
      told.loads.emplace_back(IdOf(key, kLoadPrefix), std::move(load));
    } else {
      spdlog::error("the registry's record '{}' is no load; it is passed over", record.key);
    }
  } else if (key.starts_with(kDaemonsPrefix)) {
    Revision& known = daemons_[IdOf(key, kDaemonsPrefix)];
    told.change |= known == 0;
    known = std::max(known, record.revision);
  }
}

void ClusterView::TakeDeletion(const std::string& key, Revision revision, Told& told) {
  const std::string_view name = key;
  if (name == kTopologyKey) {
    const bool was_fine = log_.fault().ok();
    Complain(log_.Missing(revision));
    told.change |= log_.fault().ok() != was_fine;
  } else if (name.starts_with(kNodesPrefix)) {
    Known& known = nodes_[IdOf(name, kNodesPrefix)];
    if (revision <= known.revision) return;
    if (known.node.has_value()) {
      told.change = true;
      told.gone.push_back(IdOf(name, kNodesPrefix));
    }
    known = {.node = std::nullopt, .revision = revision};
    if (nodes_.size() > kMaxRemembered) {
      absl::erase_if(nodes_, [](const auto& entry) { return !entry.second.node.has_value(); });
    }
  } else if (name.starts_with(kLoadPrefix)) {
    told.loads.emplace_back(IdOf(name, kLoadPrefix), nullptr);
  } else if (name.starts_with(kDaemonsPrefix)) {
    const auto known = daemons_.find(IdOf(name, kDaemonsPrefix));
    if (known == daemons_.end() || revision <= known->second) return;
    daemons_.erase(known);
    told.change = true;
  }
}

void ClusterView::TakeAll(std::string_view prefix, const Snapshot& snapshot, Told& told) {
  std::unordered_set<std::string_view> there;
  for (const Record& record : snapshot.records) {
    there.insert(record.key);
    TakeRecord(record, told);
  }
  const auto gone = [&](const std::string& key) {
    return std::string_view(key).starts_with(prefix) && !there.contains(std::string_view(key));
  };
  std::vector<std::string> missing;
  if (gone(std::string(kTopologyKey))) missing.emplace_back(kTopologyKey);
  for (const auto& [id, known] : nodes_) {
    if (known.node.has_value() && gone(NodeKey(id))) missing.push_back(NodeKey(id));
  }
  for (const auto& [id, revision] : daemons_) {
    if (gone(DaemonKey(id))) missing.push_back(DaemonKey(id));
  }
  for (const std::string& key : missing) TakeDeletion(key, snapshot.revision, told);
}

void ClusterView::Complain(const absl::Status& fault) {
  if (fault == complained_) return;
  if (fault.ok()) {
    spdlog::info("the registry's topology is good again");
  } else {
    spdlog::error("{}", MessageOf(fault));
  }
  complained_ = fault;
}

void ClusterView::Tell(const Told& told) const {
  if (told.topology != nullptr) callbacks_.on_topology(told.topology);
  for (const std::string& id : told.gone) callbacks_.on_gone(id);
  for (const auto& [id, load] : told.loads) callbacks_.on_load(id, load);
  if (told.change) callbacks_.on_change();
}

bool ClusterView::synced() const {
  MutexLock lock(mu_);
  return synced_;
}

TopologyState ClusterView::topology() const {
  MutexLock lock(mu_);
  return {.topology = log_.newest(), .revision = log_.revision(), .fault = log_.fault()};
}

TopologyPtr ClusterView::FindTopology(uint64_t cluster_id, Epoch epoch) const {
  MutexLock lock(mu_);
  return log_.Find(cluster_id, epoch);
}

std::vector<TopologyPtr> ClusterView::TopologiesAfter(Epoch epoch) const {
  MutexLock lock(mu_);
  return log_.After(epoch);
}

std::optional<NodeRecord> ClusterView::FindNode(std::string_view id) const {
  MutexLock lock(mu_);
  const auto known = nodes_.find(std::string(id));
  return known == nodes_.end() ? std::nullopt : known->second.node;
}

void ClusterView::ForEachNode(absl::FunctionRef<void(const NodeRecord&)> visit) const {
  MutexLock lock(mu_);
  for (const auto& [id, known] : nodes_) {
    if (known.node.has_value()) visit(*known.node);
  }
}

size_t ClusterView::nodes() const {
  MutexLock lock(mu_);
  return static_cast<size_t>(std::ranges::count_if(nodes_, [](const auto& e) { return e.second.node.has_value(); }));
}

std::vector<std::string> ClusterView::Daemons() const {
  MutexLock lock(mu_);
  std::vector<std::string> ids;
  for (const auto& [id, revision] : daemons_) ids.push_back(id);
  return ids;
}

}  // namespace kdn
