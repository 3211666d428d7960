#include "kdn-node/cluster/fill_plan.h"

#include <algorithm>
#include <span>
#include <utility>

namespace kdn {
namespace {

// In the order in which they are read.
enum Rank : int { kSettled, kLeaving, kPartial, kFilling };

// Those of them should have all of a partition.
bool IsWhole(int rank) { return rank <= kLeaving; }

}  // namespace

void FillPlan::Update(const Topology& topology, NodeSlot me, Time now) {
  std::map<Partition, Fill> fills;
  for (const auto& [partition, move] : topology.parts().moves) {
    if (!Contains(move.filling, me)) continue;
    Fill fill;
    if (const auto known = fills_.find(partition); known != fills_.end()) fill = std::move(known->second);

    std::vector<Source> sources;
    bool others = false;
    bool whole = false;
    bool whole_up = false;
    const auto add = [&](NodeSlot slot, Rank rank) {
      const NodeInfo* node = topology.NodeAt(slot);
      if (slot == me || node == nullptr) return;
      others = true;
      whole |= IsWhole(rank);
      if (!node->Serves()) return;
      whole_up |= IsWhole(rank);
      Source source = {.slot = slot, .rank = rank};
      for (const Source& before : fill.sources) {
        if (before.slot == slot) source = {slot, rank, before.read, before.looked_at_again};
      }
      sources.push_back(source);
    };
    const std::span<const NodeSlot> owners = topology.Owners(partition);
    for (const NodeSlot slot : owners) add(slot, Contains(move.filling, slot) ? kFilling : kSettled);
    for (const NodeSlot slot : move.leaving) add(slot, Contains(move.partial, slot) ? kPartial : kLeaving);
    // Nodes that fill at the same time do not all begin with the same source.
    std::ranges::stable_sort(sources, {}, [&](const Source& source) {
      return std::pair(source.rank, static_cast<NodeSlot>(source.slot - me));
    });

    if (!std::ranges::equal(fill.owners, owners) || fill.move != move) {
      for (Source& source : sources) source.looked_at_again = false;
      fill.read_at = now;
      fill.owners.assign(owners.begin(), owners.end());
      fill.move = move;
    }
    fill.sources = std::move(sources);
    fill.waits = others && (fill.sources.empty() || (whole && !whole_up));
    fills.emplace(partition, std::move(fill));
  }
  fills_ = std::move(fills);
}

void FillPlan::Clear() {
  fills_.clear();
  rests_.clear();
}

bool FillPlan::IsRead(const Fill& fill) const { return std::ranges::all_of(fill.sources, &Source::read); }

bool FillPlan::IsFilled(const Fill& fill) const {
  return !fill.waits && IsRead(fill) && std::ranges::all_of(fill.sources, [](const Source& source) {
    return source.looked_at_again || !IsWhole(source.rank);
  });
}

bool FillPlan::Rests(NodeSlot slot, Time now) const {
  const auto rest = rests_.find(slot);
  return rest != rests_.end() && now < rest->second.until;
}

const FillPlan::Source* FillPlan::NextSource(const Fill& fill, bool second_look, Time now) const {
  // What a source has need not wait for others that are down.
  if (second_look && (!IsRead(fill) || now < fill.read_at + absl::ToChronoNanoseconds(options_.verify_after))) {
    return nullptr;
  }
  for (const Source& source : fill.sources) {
    const bool due = second_look ? !source.looked_at_again && IsWhole(source.rank) : !source.read;
    if (due && !Rests(source.slot, now)) return &source;
  }
  return nullptr;
}

std::optional<FillPlan::Task> FillPlan::Next(Time now) const {
  // What is nearly done first.
  for (const bool second_look : {true, false}) {
    Task task = {.second_look = second_look};
    for (const auto& [partition, fill] : fills_) {
      const Source* source = NextSource(fill, second_look, now);
      if (source == nullptr || (task.source != kNoSlot && source->slot != task.source)) continue;
      task.source = source->slot;
      task.partitions.push_back(partition);
      if (task.partitions.size() == options_.task_partitions) break;
    }
    if (task.source != kNoSlot) return task;
  }
  return std::nullopt;
}

void FillPlan::Done(const Task& task, Time now) {
  rests_.erase(task.source);
  for (const Partition partition : task.partitions) {
    const auto fill = fills_.find(partition);
    if (fill == fills_.end()) continue;
    for (Source& source : fill->second.sources) {
      if (source.slot != task.source) continue;
      (task.second_look ? source.looked_at_again : source.read) = true;
    }
    if (!task.second_look) fill->second.read_at = now;
  }
}

void FillPlan::Failed(const Task& task, Time now) {
  const auto [rest, first] = rests_.try_emplace(task.source, Rest{.next = options_.first_rest});
  rest->second.until = now + absl::ToChronoNanoseconds(rest->second.next);
  rest->second.next = std::min(rest->second.next * 2, options_.longest_rest);
}

std::vector<Partition> FillPlan::Filled() const {
  std::vector<Partition> filled;
  for (const auto& [partition, fill] : fills_) {
    if (IsFilled(fill)) filled.push_back(partition);
  }
  return filled;
}

}  // namespace kdn
