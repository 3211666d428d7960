#include "kdn-client/cluster/cluster_fetch.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "kdn-client/async/fetch_delivery.h"
#include "kdn-client/call_rules.h"
#include "kdn-client/cluster/in_parallel.h"
#include "kdn-client/cluster/reader_plan.h"
#include "kdn-client/cluster/reader_sink.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

std::vector<uint32_t> ChunksOf(const NodeGroup& group) {
  std::vector<uint32_t> chunks;
  chunks.reserve(group.asked.size());
  for (const SoughtChunk& asked : group.asked) chunks.push_back(asked.chunk);
  return chunks;
}

// Chunks that are first asked from one node, on their way to one sink.
struct GroupFetch {
  GroupFetch(const NodeGroup& group, LayerRange layers, SlabSink& sink)
      : slot(group.slot),
        asked(group.asked),
        begun(group.asked.size()),
        to_sink(sink, ChunksOf(group)),
        delivery(std::make_shared<FetchDelivery>(group.asked.size(), layers, to_sink)) {}
  // From now on the sink is not touched.
  ~GroupFetch() { delivery->Close(); }
  GroupFetch(const GroupFetch&) = delete;
  GroupFetch& operator=(const GroupFetch&) = delete;

  void Note(const HeardChunks& heard, std::span<const size_t> part, const absl::Status& ended) {
    for (const size_t i : part) {
      begun[i] |= heard.begun[i];
      const bool said = heard.misses[i].reason != MissReason::kNone;
      if (said || !ended.ok()) asked[i].miss = Telling(asked[i].miss, said ? heard.misses[i] : MissFromCall(ended));
    }
  }

  const NodeSlot slot;
  std::vector<SoughtChunk> asked;
  std::vector<uint8_t> begun;  // some node has begun to send the chunk, so that it has to go on by this delivery
  GroupSink to_sink;
  const std::shared_ptr<FetchDelivery> delivery;
};

// Shared by all that is asked for one call, some of which may go on when the call is over.
class FetchCall : public std::enable_shared_from_this<FetchCall> {
 public:
  FetchCall(ClusterCore& core, TopologyViewPtr view, const FetchQuery& query, absl::Time deadline)
      : core_(core),
        view_(std::move(view)),
        query_(query),
        keys_(query.keys.begin(), query.keys.end()),
        deadline_(deadline) {
    readers_.reserve(keys_.size());
    for (const ChunkKey& key : keys_) readers_.push_back(view_->topology->Readers(key));
  }

  // Each of `asked` comes to `sink` or is missed there, unless the status says otherwise.
  absl::Status Run(std::span<const SoughtChunk> asked, SlabSink& sink, Cancellation* cancel) {
    const ReaderPlan plan = PlanReaders(*view_, readers_, asked);
    for (const uint32_t at : plan.stranded) sink.OnMiss(asked[at].chunk, MissOfStranded(asked[at]));
    std::vector<std::unique_ptr<SlabSink>> forks(plan.groups.size());
    bool forked = true;
    for (size_t i = 1; i < forks.size() && forked; ++i) {
      forks[i] = sink.Fork();
      forked = forks[i] != nullptr;
    }
    std::vector<absl::Status> ended(plan.groups.size());
    InParallel(core_.helpers, plan.groups.size(), forked ? core_.options.max_parallel : 1, [&](size_t i) {
      ended[i] = FetchGroup(plan.groups[i], forks[i] == nullptr ? sink : *forks[i], cancel);
      forks[i] = nullptr;
    });
    const auto failed = std::ranges::find_if(ended, [](const absl::Status& status) { return !status.ok(); });
    return failed == ended.end() ? absl::OkStatus() : *failed;
  }

 private:
  Miss MissOfStranded(const SoughtChunk& asked) const {
    if (asked.miss.reason != MissReason::kNone) return asked.miss;
    if (asked.tried != 0) return {MissReason::kProtocol, "its nodes ended the fetch without an answer"};
    const Partition partition = view_->topology->PartitionOf(keys_[asked.chunk]);
    return MissFromCall(
        Unavailable("no node that is up holds partition {} (epoch {})", partition, view_->topology->epoch()));
  }

  // Whether it makes sense to ask somebody else after a call that ended so.
  absl::Status GoesOn(const absl::Status& ended, const Cancellation* cancel) const {
    if (absl::IsInvalidArgument(ended)) return ended;
    if (cancel != nullptr && cancel->cancelled()) return Cancelled("the fetch was cancelled");
    return CheckTime(deadline_);
  }

  // `keys` outlives the call that is made with it.
  FetchQuery QueryFor(std::span<const ChunkKey> keys, LayerRange layers, Cancellation* cancel) const {
    FetchQuery query = query_;
    query.keys = keys;
    query.layers = layers;
    query.cancel = cancel;
    return query;
  }

  absl::Status FetchGroup(const NodeGroup& group, SlabSink& sink, Cancellation* cancel) {
    if (!group.has_others) return FetchFromLast(group, sink, cancel);
    GroupFetch fetch(group, query_.layers, sink);
    if (core_.Hedges()) {
      KDN_RETURN_IF_ERROR(Hedged(group, cancel, fetch));
    } else {
      std::vector<size_t> all(group.asked.size());
      std::iota(all.begin(), all.end(), size_t{0});
      HeardChunks heard(all.size());
      const absl::Status ended = FetchPart(group.slot, ChunksOf(group), all, query_.layers, *fetch.delivery, heard,
                                           cancel, [] { return true; });
      CountFound(group.asked, heard);
      if (fetch.delivery->Wanted().chunks.empty()) return absl::OkStatus();
      KDN_RETURN_IF_ERROR(GoesOn(ended, cancel));
      if (!ended.ok()) core_.counts.failed_over.fetch_add(1, std::memory_order_relaxed);
      fetch.Note(heard, all, ended);
    }
    return FetchRest(fetch, sink, cancel);
  }

  // `asked` and `heard` are of one group.
  void CountFound(std::span<const SoughtChunk> asked, const HeardChunks& heard) {
    for (size_t i = 0; i < asked.size(); ++i) {
      if (heard.begun[i] == 0 || !IsAnswer(asked[i].miss)) continue;
      core_.counts.second_reader.fetch_add(1, std::memory_order_relaxed);
    }
  }

  // From the only node that is left to ask.
  absl::Status FetchFromLast(const NodeGroup& group, SlabSink& sink, Cancellation* cancel) {
    std::vector<ChunkKey> keys;
    std::vector<Miss> kept_back;
    for (const SoughtChunk& asked : group.asked) {
      keys.push_back(keys_[asked.chunk]);
      kept_back.push_back(asked.miss);
    }
    ClusterNode& node = view_->NodeAt(group.slot);
    core_.counts.node_calls.fetch_add(1, std::memory_order_relaxed);
    ClusterNode::Call call(node);
    GroupSink to_sink(sink, ChunksOf(group));
    LastReaderSink last(to_sink, query_.layers, std::move(kept_back), [&call] { call.Answered(); });
    const absl::Status ended = node.transport().Fetch(QueryFor(keys, query_.layers, cancel), deadline_, last);
    core_.Ended(call, ended, core_.fetches);
    core_.counts.second_reader.fetch_add(last.second_reader(), std::memory_order_relaxed);
    if (!ended.ok()) KDN_RETURN_IF_ERROR(GoesOn(ended, cancel));
    last.Close(ended.ok() ? Miss{MissReason::kProtocol, "the node ended the fetch without an answer"}
                          : MissFromCall(ended));
    return absl::OkStatus();
  }

  // Asks a node for chunks of a group; part[i] is the place of chunks[i] there.
  absl::Status FetchPart(NodeSlot slot, std::span<const uint32_t> chunks, std::span<const size_t> part,
                         LayerRange layers, FetchDelivery& delivery, HeardChunks& heard, Cancellation* cancel,
                         const std::function<bool()>& claim, bool misses_count = true) {
    std::vector<ChunkKey> keys;
    keys.reserve(chunks.size());
    for (const uint32_t chunk : chunks) keys.push_back(keys_[chunk]);
    ClusterNode& node = view_->NodeAt(slot);
    core_.counts.node_calls.fetch_add(1, std::memory_order_relaxed);
    ClusterNode::Call call(node);
    const auto answered = [&] {
      call.Answered();
      return claim();
    };
    ReaderSink sink(delivery, part, heard, answered, misses_count);
    absl::Status ended = node.transport().Fetch(QueryFor(keys, layers, cancel), deadline_, sink);
    core_.Ended(call, ended, core_.fetches);
    if (ended.ok() && !misses_count && !sink.is_heard()) return Unavailable("it holds none of the chunks");
    return ended;
  }

  // One side of a race: a node, and the chunks of the group that it is asked for.
  struct Side {
    explicit Side(size_t of_group) : heard(of_group) {}

    NodeSlot slot = kNoSlot;
    std::vector<uint32_t> chunks = {};
    std::vector<size_t> part = {};  // their places in the group
    HeardChunks heard;
    absl::Status ended;
    bool is_heard = false;
  };
  struct Contest {
    Contest(size_t of_group, std::shared_ptr<FetchDelivery> to)
        : node(of_group), other(of_group), delivery(std::move(to)) {}

    Side node;
    Side other;  // the node that is next for most of the chunks
    std::vector<ReaderMask> other_tried = {};
    std::atomic<bool> node_failed{false};
    const std::shared_ptr<FetchDelivery> delivery;
  };

  // A race between the group's node and another one. OK: what has not come can be asked from whoever has not been
  // tried.
  absl::Status Hedged(const NodeGroup& group, Cancellation* cancel, GroupFetch& fetch) {
    const std::shared_ptr<Contest> contest = ContestOf(group, fetch);
    const auto race = std::make_shared<Race>(core_.attempts, deadline_);
    const Race::Ask ask = [self = shared_from_this(), contest,
                           weak = std::weak_ptr<Race>(race)](Race::Attempt& attempt) -> absl::Status {
      const std::shared_ptr<Race> held = weak.lock();
      const bool is_node = attempt.replica == 0;
      // When the node fails, all that are left are asked at once, and not this one first.
      if (!is_node && contest->node_failed) return Unavailable("the node that was asked first failed");
      Side& side = is_node ? contest->node : contest->other;
      const auto claim = [&] {
        if (!held->Claim(attempt)) return false;
        side.is_heard = true;
        return true;
      };
      // Only a chunk makes the other one heard: that it does not hold it either need not keep the node from sending it.
      side.ended = self->FetchPart(side.slot, side.chunks, side.part, self->query_.layers, *contest->delivery,
                                   side.heard, &attempt.cancel, claim, /*misses_count=*/is_node);
      if (is_node && !side.ended.ok()) contest->node_failed = true;
      return Apart(side.ended);
    };
    Race::Outcome outcome;
    {
      const Cancellation::Link link(cancel, [race] { race->Stop(); });
      outcome =
          race->Run(std::array<size_t, 2>{0, 1}, ask, core_.RulesFor(core_.fetches, view_->nodes[group.slot].node));
    }
    if (fetch.delivery->Wanted().chunks.empty()) return absl::OkStatus();
    // Out of time, the winner may still be at work on what is read below.
    KDN_RETURN_IF_ERROR(GoesOn(outcome.status, cancel));

    const auto failed = [&](size_t replica) { return std::ranges::count(outcome.failed, replica) > 0; };
    const bool other_won = outcome.won && contest->other.is_heard;
    if (failed(0)) core_.counts.failed_over.fetch_add(1, std::memory_order_relaxed);
    if (failed(0) || !other_won) NoteSide(contest->node, fetch);
    if (other_won || (!outcome.won && outcome.hedged > 0)) {
      NoteSide(contest->other, fetch);
      for (size_t k = 0; k < contest->other.part.size(); ++k) {
        fetch.asked[contest->other.part[k]].tried = contest->other_tried[k];
      }
    }
    if (!other_won || failed(0)) return absl::OkStatus();
    // The node has not been heard: it can still be asked, after the others.
    view_->NodeAt(group.slot).Rest(core_.options.hedge.max_delay);
    for (size_t i = 0; i < fetch.asked.size(); ++i) fetch.asked[i].tried &= ~group.self[i];
    return absl::OkStatus();
  }

  void NoteSide(const Side& side, GroupFetch& fetch) {
    CountFound(fetch.asked, side.heard);
    fetch.Note(side.heard, side.part, side.ended);
  }

  std::shared_ptr<Contest> ContestOf(const NodeGroup& group, const GroupFetch& fetch) const {
    auto contest = std::make_shared<Contest>(group.asked.size(), fetch.delivery);
    contest->node.slot = group.slot;
    contest->node.chunks = ChunksOf(group);
    contest->node.part.resize(group.asked.size());
    std::iota(contest->node.part.begin(), contest->node.part.end(), size_t{0});

    const ReaderPlan plan = PlanReaders(*view_, readers_, group.asked);
    const auto next =
        std::ranges::max_element(plan.groups, {}, [](const NodeGroup& candidate) { return candidate.asked.size(); });
    contest->other.slot = next->slot;
    contest->other.chunks = ChunksOf(*next);
    contest->other.part.assign(next->at.begin(), next->at.end());
    for (const SoughtChunk& asked : next->asked) contest->other_tried.push_back(asked.tried);
    return contest;
  }

  // What has not come, from readers that have not been tried.
  absl::Status FetchRest(GroupFetch& fetch, SlabSink& sink, Cancellation* cancel) {
    while (true) {
      const FetchDelivery::Rest wanted = fetch.delivery->Wanted();
      if (wanted.chunks.empty()) return absl::OkStatus();
      std::vector<SoughtChunk> asked;
      std::vector<size_t> places;
      for (const size_t i : wanted.chunks) {
        if (fetch.begun[i] == 0) continue;
        asked.push_back(fetch.asked[i]);
        places.push_back(i);
      }
      if (asked.empty()) {
        for (const size_t i : wanted.chunks) asked.push_back(fetch.asked[i]);
        fetch.delivery->Close();
        return Run(asked, sink, cancel);
      }
      KDN_RETURN_IF_ERROR(Continue(fetch, asked, places, wanted.layers, cancel));
    }
  }

  // Goes on with chunks that broke off, where they did, with the next reader of some of them.
  absl::Status Continue(GroupFetch& fetch, std::span<const SoughtChunk> asked, std::span<const size_t> places,
                        LayerRange layers, Cancellation* cancel) {
    const ReaderPlan plan = PlanReaders(*view_, readers_, asked);
    for (const uint32_t at : plan.stranded) fetch.delivery->OnMiss(places[at], MissOfStranded(asked[at]));
    if (plan.groups.empty()) return absl::OkStatus();
    const NodeGroup& group = plan.groups.front();
    std::vector<size_t> part;
    for (size_t k = 0; k < group.at.size(); ++k) {
      part.push_back(places[group.at[k]]);
      fetch.asked[part.back()].tried = group.asked[k].tried;
    }
    HeardChunks heard(fetch.asked.size());
    const absl::Status ended =
        FetchPart(group.slot, ChunksOf(group), part, layers, *fetch.delivery, heard, cancel, [] { return true; });
    CountFound(fetch.asked, heard);
    fetch.Note(heard, part, ended);
    if (ended.ok() || fetch.delivery->Wanted().chunks.empty()) return absl::OkStatus();
    return GoesOn(ended, cancel);
  }

  ClusterCore& core_;
  const TopologyViewPtr view_;
  const FetchQuery query_;  // but for its keys and its cancellation, which are the caller's
  const std::vector<ChunkKey> keys_;
  const absl::Time deadline_;
  std::vector<Topology::ReaderList> readers_;  // by chunk
};

}  // namespace

absl::Status FetchFromCluster(ClusterCore& core, TopologyViewPtr view, const FetchQuery& query, absl::Time deadline,
                              SlabSink& sink) {
  if (query.keys.empty()) return absl::OkStatus();
  FetchQuery marked = query;
  marked.looked_up = core.recent_lookups.FoundAll(query.keys);
  const auto call = std::make_shared<FetchCall>(core, std::move(view), marked, deadline);
  std::vector<SoughtChunk> asked(query.keys.size());
  for (uint32_t i = 0; i < asked.size(); ++i) asked[i].chunk = i;
  return call->Run(asked, sink, query.cancel);
}

}  // namespace kdn
