#include "kdn-client/cluster/reader_plan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <random>

#include "absl/container/flat_hash_map.h"

namespace kdn {
namespace {

// So many chunks of one call weigh as much as one more call: chunks of equally quick readers are spread evenly.
constexpr double kChunksPerCall = 8;
// A chunk's home is asked unless another reader is better by this factor: what is measured of equal nodes differs less.
constexpr double kHomeAdvantage = 2;

uint32_t Draw(uint32_t below) {
  thread_local std::minstd_rand random(std::random_device{}());
  return static_cast<uint32_t>(random() % below);
}

// What is known of a node while a plan is made.
struct Candidate {
  double cost = 0;
  bool near = false;
  bool rests = false;
  size_t group = SIZE_MAX;  // of the plan, once it has one
  size_t chunks = 0;        // that it has been given

  double Cost() const { return cost * (1.0 + static_cast<double>(chunks) / kChunksPerCall); }
};

class Planner {
 public:
  explicit Planner(const TopologyView& view) : view_(view), now_(SteadyClock::Real().Now()) {}

  Candidate& Of(NodeSlot slot) {
    const auto [at, is_new] = candidates_.try_emplace(slot);
    if (is_new) {
      const TopologyView::Entry& entry = view_.nodes[slot];
      at->second = {.cost = entry.node->Cost(now_), .near = entry.near, .rests = entry.node->Rests(now_)};
    }
    return at->second;
  }

  // The place of the reader to ask in the list; its size when all have been tried.
  size_t Choose(const Topology::ReaderList& readers, ReaderMask tried) {
    std::array<size_t, NodeList::kCapacity> drawn{};
    size_t count = 0;
    bool near = false;
    size_t last = readers.size();
    for (size_t i = 0; i < readers.size(); ++i) {
      if ((tried >> i & 1) != 0) continue;
      const Candidate& candidate = Of(readers.slots()[i]);
      if (candidate.rests) {
        if (last == readers.size()) last = i;
        continue;
      }
      if (i >= readers.settled) {
        if (count > 0) break;
        return i;  // of former and future owners, in their order
      }
      if (candidate.near && !near) {
        near = true;
        count = 0;
      }
      if (candidate.near == near) drawn[count++] = i;
    }
    if (count == 0) return last;
    return Better(readers, std::span(drawn).first(count));
  }

 private:
  size_t Better(const Topology::ReaderList& readers, std::span<const size_t> of) {
    if (of.size() == 1) return of[0];
    const auto home = std::ranges::find(of, readers.home);
    const bool has_home = home != of.end();
    const auto first = has_home ? static_cast<uint32_t>(home - of.begin()) : Draw(static_cast<uint32_t>(of.size()));
    uint32_t second = Draw(static_cast<uint32_t>(of.size()) - 1);
    if (second >= first) ++second;
    // References into the map would not outlive the second one.
    const double cost = Of(readers.slots()[of[first]]).Cost();
    const double other = Of(readers.slots()[of[second]]).Cost() * (has_home ? kHomeAdvantage : 1);
    return other < cost ? of[second] : of[first];
  }

  const TopologyView& view_;
  const SteadyClock::Point now_;
  absl::flat_hash_map<NodeSlot, Candidate> candidates_;
};

}  // namespace

ReaderPlan PlanReaders(const TopologyView& view, std::span<const Topology::ReaderList> readers,
                       std::span<const SoughtChunk> asked) {
  ReaderPlan plan;
  Planner planner(view);
  for (uint32_t at = 0; at < asked.size(); ++at) {
    const Topology::ReaderList& list = readers[asked[at].chunk];
    const size_t reader = planner.Choose(list, asked[at].tried);
    if (reader >= list.size()) {
      plan.stranded.push_back(at);
      continue;
    }
    const NodeSlot slot = list.slots()[reader];
    Candidate& candidate = planner.Of(slot);
    if (candidate.group == SIZE_MAX) {
      candidate.group = plan.groups.size();
      plan.groups.push_back({.slot = slot});
    }
    ++candidate.chunks;
    NodeGroup& group = plan.groups[candidate.group];
    const ReaderMask self = ReaderMask{1} << reader;
    group.at.push_back(at);
    group.asked.push_back(asked[at]);
    group.asked.back().tried |= self;
    group.self.push_back(self);
    group.has_others |= group.asked.back().tried != AllReaders(list);
  }
  return plan;
}

bool MayBeElsewhere(const Miss& miss) {
  switch (miss.reason) {
    case MissReason::kNotFound:
    case MissReason::kFidelity:  // the other replica may not have been recoded
    case MissReason::kCorrupt:
    case MissReason::kUnreachable:
    case MissReason::kRefused:
    case MissReason::kProtocol:
    case MissReason::kInternal:
      return true;
    default:
      return false;
  }
}

bool IsAnswer(const Miss& miss) {
  return miss.reason == MissReason::kNotFound || miss.reason == MissReason::kFidelity ||
         miss.reason == MissReason::kCorrupt;
}

const Miss& Telling(const Miss& a, const Miss& b) {
  if (b.reason == MissReason::kNone) return a;
  if (a.reason == MissReason::kNone || a.reason == MissReason::kNotFound) return b;
  return b.reason == MissReason::kNotFound ? a : b;
}

}  // namespace kdn
