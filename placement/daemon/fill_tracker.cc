#include "placement/daemon/fill_tracker.h"

#include <algorithm>
#include <utility>

namespace kdn {
namespace {

// The same process in the same place, serving in both.
bool SameNode(const NodeInfo* before, const NodeInfo* after) {
  return before != nullptr && after != nullptr && before->id == after->id &&
         before->incarnation == after->incarnation && before->Serves() && after->Serves();
}

}  // namespace

void FillTracker::Observe(const TopologyPtr& topology) {
  const bool follows = newest_ != nullptr && topology->epoch() == newest_->epoch() + 1 &&
                       topology->parts().cluster_id == newest_->parts().cluster_id;
  absl::flat_hash_map<Fill, Epoch> since;
  since.reserve(topology->parts().moves.size());
  for (const auto& [partition, move] : topology->parts().moves) {
    for (const NodeSlot slot : move.filling) {
      const Fill fill(partition, slot);
      const auto before = since_.find(fill);
      const bool goes_on = follows && before != since_.end() && SameNode(newest_->NodeAt(slot), topology->NodeAt(slot));
      since.emplace(fill, goes_on ? before->second : topology->epoch());
    }
  }
  since_ = std::move(since);
  newest_ = topology;
  absl::erase_if(reported_, [this](const auto& report) {
    const auto asked = since_.find(report.first);
    return asked == since_.end() || report.second < asked->second;
  });
}

void FillTracker::Report(const std::string& id, std::span<const Partition> partitions, Epoch filled_epoch) {
  if (newest_ == nullptr || filled_epoch > newest_->epoch()) return;
  const NodeInfo* node = newest_->FindNode(id);
  if (node == nullptr || !node->Serves()) return;
  for (const Partition partition : partitions) {
    const auto asked = since_.find(Fill(partition, node->slot));
    if (asked != since_.end() && filled_epoch >= asked->second) reported_[asked->first] = filled_epoch;
  }
}

std::map<std::string, std::vector<Partition>> FillTracker::Pending() const {
  std::map<std::string, std::vector<Partition>> filled;
  for (const auto& [fill, epoch] : reported_) filled[newest_->NodeAt(fill.second)->id].push_back(fill.first);
  for (auto& [id, partitions] : filled) std::ranges::sort(partitions);
  return filled;
}

}  // namespace kdn
