#include "kdn-client/cluster/cluster_transport.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "kdn-client/call_rules.h"
#include "kdn-client/cluster/cluster_core.h"
#include "kdn-client/cluster/cluster_fetch.h"
#include "kdn-client/cluster/cluster_leases.h"
#include "kdn-client/cluster/cluster_lookup.h"
#include "kdn-client/cluster/cluster_store.h"
#include "kdn-client/cluster/in_parallel.h"
#include "kdn-client/cluster/reader_plan.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

void Add(const TierStats& more, TierStats& sum) {
  sum.chunks += more.chunks;
  sum.bytes += more.bytes;
  sum.budget_bytes += more.budget_bytes;
  sum.puts += more.puts;
  sum.put_bytes += more.put_bytes;
  sum.hits += more.hits;
  sum.misses += more.misses;
  sum.read_bytes += more.read_bytes;
  sum.evictions += more.evictions;
  sum.evicted_bytes += more.evicted_bytes;
  sum.refused += more.refused;
  sum.corrupt += more.corrupt;
  sum.expired += more.expired;
  sum.bypassed += more.bypassed;
}

void Add(const StoreStats& more, StoreStats& sum) {
  Add(more.memory, sum.memory);
  if (sum.disks.size() < more.disks.size()) sum.disks.resize(more.disks.size());
  for (size_t i = 0; i < more.disks.size(); ++i) Add(more.disks[i], sum.disks[i]);
  for (size_t i = 0; i < sum.misses.size(); ++i) sum.misses[i] += more.misses[i];
  sum.leases += more.leases;
  sum.pinned_chunks += more.pinned_chunks;
  sum.write_back_pending_bytes += more.write_back_pending_bytes;
  sum.write_back_dropped += more.write_back_dropped;
  sum.demoted += more.demoted;
  sum.promoted += more.promoted;
  sum.scrubbed_chunks += more.scrubbed_chunks;
  sum.scrubbed_bytes += more.scrubbed_bytes;
}

// Nodes that may hold the chunk, those that are down included.
NodeList Holders(const Topology& topology, const ChunkKey& key) {
  NodeList holders;
  const Partition partition = topology.PartitionOf(key);
  for (const NodeSlot slot : topology.Owners(partition)) {
    if (slot != kNoSlot) holders.Add(slot);
  }
  if (const Move* move = topology.MoveOf(partition); move != nullptr) {
    for (const NodeSlot slot : move->leaving) holders.Add(slot);
    for (const NodeSlot slot : move->filling) holders.Add(slot);
  }
  if (const auto hot = topology.parts().hot.find(key); hot != topology.parts().hot.end()) {
    for (const NodeSlot slot : hot->second.extra) holders.Add(slot);
  }
  return holders;
}

class ClusterTransportImpl final : public ClusterTransport {
 public:
  ClusterTransportImpl(std::shared_ptr<TopologySource> topology, const ClusterTransportOptions& options)
      : core_(std::move(topology), options) {}

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_ASSIGN_OR_RETURN(TopologyViewPtr view, Begin(deadline));
    core_.counts.lookups.fetch_add(1, std::memory_order_relaxed);
    return LookupInCluster(core_, std::move(view), space, keys, least, deadline);
  }

  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_ASSIGN_OR_RETURN(TopologyViewPtr view, Begin(deadline));
    core_.counts.fetches.fetch_add(1, std::memory_order_relaxed);
    return FetchFromCluster(core_, std::move(view), query, deadline, sink);
  }

  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_RETURN_IF_ERROR(CheckCount(chunks.size()));
    KDN_ASSIGN_OR_RETURN(TopologyViewPtr view, Begin(deadline));
    return StoreInCluster(core_, std::move(view), chunks, ack, deadline);
  }

  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_ASSIGN_OR_RETURN(const TopologyViewPtr view, Begin(deadline));
    std::vector<absl::StatusOr<PrefetchCounts>> answers;
    const Asked asked = AskReaders(*view, keys, answers, [&](Transport& node, std::span<const ChunkKey> of_node) {
      return node.Prefetch(space, of_node, deadline);
    });
    PrefetchCounts counts;
    counts.not_held = asked.stranded;
    bool any = asked.stranded > 0;
    absl::Status failure;
    for (size_t i = 0; i < answers.size(); ++i) {
      if (!answers[i].ok()) {
        failure = answers[i].status();
        counts.refused += asked.plan.groups[i].asked.size();
        continue;
      }
      any = true;
      counts.in_memory += answers[i]->in_memory;
      counts.coming += answers[i]->coming;
      counts.not_held += answers[i]->not_held;
      counts.refused += answers[i]->refused;
    }
    if (!any && !failure.ok()) return failure;
    return counts;
  }

  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_ASSIGN_OR_RETURN(const TopologyViewPtr view, Begin(deadline));
    const Topology& topology = *view->topology;
    // OK where one held the chunk and all went well; what failed stands.
    std::vector<absl::Status> deleted(keys.size(), NotFound("no node holds the chunk"));
    const auto combine = [&](size_t key, const absl::Status& status) {
      absl::Status& so_far = deleted[key];
      if (absl::IsNotFound(so_far) || (so_far.ok() && !absl::IsNotFound(status))) so_far = status;
    };
    std::map<NodeSlot, std::vector<size_t>> by_node;
    for (size_t i = 0; i < keys.size(); ++i) {
      const NodeList holders = Holders(topology, keys[i]);
      if (holders.empty()) combine(i, Unavailable("no node owns partition {}", topology.PartitionOf(keys[i])));
      for (const NodeSlot slot : holders.slots()) {
        if (topology.NodeAt(slot)->Serves()) {
          by_node[slot].push_back(i);
        } else {
          combine(i, Unavailable("{} is down, and what it holds could come back; delete it again then",
                                 view->NameOf(slot)));
        }
      }
    }
    const std::vector<std::pair<NodeSlot, std::vector<size_t>>> calls(by_node.begin(), by_node.end());
    std::vector<absl::StatusOr<std::vector<absl::Status>>> answers(calls.size());
    InParallel(core_.helpers, calls.size(), core_.options.max_parallel, [&](size_t i) {
      const auto& [slot, which] = calls[i];
      std::vector<ChunkKey> of_node;
      for (const size_t key : which) of_node.push_back(keys[key]);
      ClusterNode& node = view->NodeAt(slot);
      answers[i] = node.transport().Delete(space, of_node, deadline);
      node.Note(answers[i].status());
      if (answers[i].ok() && answers[i]->size() != which.size()) answers[i] = DataLoss("it answered for other chunks");
    });
    for (size_t i = 0; i < calls.size(); ++i) {
      const auto& [slot, which] = calls[i];
      for (size_t k = 0; k < which.size(); ++k) {
        const absl::Status status = answers[i].ok() ? (*answers[i])[k] : answers[i].status();
        combine(which[k], Annotate(status, view->NameOf(slot)));
      }
    }
    return deleted;
  }

  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_RETURN_IF_ERROR(CheckCount(keys.size()));
    KDN_ASSIGN_OR_RETURN(const TopologyViewPtr view, Begin(deadline));
    std::vector<absl::StatusOr<Lease>> answers;
    const Asked asked = AskReaders(*view, keys, answers, [&](Transport& node, std::span<const ChunkKey> of_node) {
      return node.Pin(space, of_node, duration, deadline);
    });
    std::vector<ClusterLeases::NodeLease> leases;
    absl::Status failure;
    for (size_t i = 0; i < answers.size(); ++i) {
      if (answers[i].ok()) {
        leases.push_back({.node = view->nodes[asked.plan.groups[i].slot].node, .lease = *answers[i]});
      } else {
        failure = answers[i].status();
      }
    }
    if (leases.empty() && !failure.ok()) return failure;
    if (leases.empty() && duration <= absl::ZeroDuration()) return InvalidArgument("pin for a positive time");
    if (leases.empty()) return Lease{.id = leases_.Add({}, RealNow()).id, .expires = RealNow() + duration, .pinned = 0};
    return leases_.Add(std::move(leases), RealNow());
  }

  absl::Status Unpin(uint64_t lease, absl::Time deadline) override {
    const ScopedTrace trace(CurrentOrNewTrace());
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    const std::optional<std::vector<ClusterLeases::NodeLease>> leases = leases_.Take(lease, RealNow());
    if (!leases.has_value()) return NotFound("there is no lease {}; it may have expired", lease);
    std::vector<absl::Status> ended(leases->size());
    InParallel(core_.helpers, leases->size(), core_.options.max_parallel, [&](size_t i) {
      const ClusterLeases::NodeLease& one = (*leases)[i];
      ended[i] = one.node->transport().Unpin(one.lease.id, deadline);
    });
    const auto failed = std::ranges::find_if(ended, [](const absl::Status& status) { return !status.ok(); });
    return failed == ended.end() ? absl::OkStatus() : *failed;
  }

  absl::StatusOr<StoreStats> Stats(absl::Time deadline) override {
    KDN_ASSIGN_OR_RETURN(const TopologyViewPtr view, Begin(deadline));
    std::vector<NodeSlot> up;
    for (const NodeInfo& node : view->topology->parts().nodes) {
      if (node.Serves()) up.push_back(node.slot);
    }
    std::vector<absl::StatusOr<StoreStats>> answers(up.size());
    InParallel(core_.helpers, up.size(), core_.options.max_parallel,
               [&](size_t i) { answers[i] = view->NodeAt(up[i]).transport().Stats(deadline); });
    StoreStats sum;
    absl::Status failure =
        up.empty() ? Unavailable("no node of cluster {} is up", view->topology->cluster()) : absl::OkStatus();
    bool any = false;
    for (const absl::StatusOr<StoreStats>& answer : answers) {
      if (!answer.ok()) {
        failure = answer.status();
        continue;
      }
      any = true;
      Add(*answer, sum);
    }
    if (!any) return failure;
    return sum;
  }

  ClusterCounts Counts() const override {
    return {.lookups = core_.counts.lookups.load(),
            .fetches = core_.counts.fetches.load(),
            .node_calls = core_.counts.node_calls.load(),
            .second_reader = core_.counts.second_reader.load(),
            .failed_over = core_.counts.failed_over.load()};
  }

 private:
  // Which nodes were asked for which chunks.
  struct Asked {
    ReaderPlan plan;
    size_t stranded = 0;  // chunks that no node that is up may hold
  };

  absl::StatusOr<TopologyViewPtr> Begin(absl::Time deadline) {
    KDN_RETURN_IF_ERROR(CheckTime(deadline));
    return core_.View();
  }

  // Makes `call` to the node that would be asked first for each key; answers[i] is that of the plan's group i. The
  // chunks of a node that fails are asked from their next readers, once.
  template <typename Answer, typename Call>
  Asked AskReaders(const TopologyView& view, std::span<const ChunkKey> keys, std::vector<Answer>& answers,
                   const Call& call) {
    std::vector<Topology::ReaderList> readers;
    std::vector<SoughtChunk> first(keys.size());
    for (uint32_t i = 0; i < first.size(); ++i) {
      first[i].chunk = i;
      readers.push_back(view.topology->Readers(keys[i]));
    }
    const auto ask = [&](std::span<const SoughtChunk> chunks) {
      ReaderPlan plan = PlanReaders(view, readers, chunks);
      std::vector<Answer> of_plan(plan.groups.size());
      InParallel(core_.helpers, plan.groups.size(), core_.options.max_parallel, [&](size_t i) {
        std::vector<ChunkKey> of_node;
        for (const SoughtChunk& chunk : plan.groups[i].asked) of_node.push_back(keys[chunk.chunk]);
        ClusterNode& node = view.NodeAt(plan.groups[i].slot);
        of_plan[i] = call(node.transport(), of_node);
        node.Note(of_plan[i].status());
      });
      return std::pair(std::move(plan), std::move(of_plan));
    };

    auto [plan, of_plan] = ask(first);
    Asked asked = {.plan = {}, .stranded = plan.stranded.size()};
    std::vector<SoughtChunk> again;
    for (size_t i = 0; i < plan.groups.size(); ++i) {
      NodeGroup& group = plan.groups[i];
      const bool moves_on = !of_plan[i].ok() && group.has_others && !absl::IsInvalidArgument(of_plan[i].status());
      if (moves_on) {
        again.insert(again.end(), group.asked.begin(), group.asked.end());
      } else {
        asked.plan.groups.push_back(std::move(group));
        answers.push_back(std::move(of_plan[i]));
      }
    }
    if (again.empty()) return asked;
    auto [next_plan, of_next] = ask(again);
    asked.stranded += next_plan.stranded.size();
    std::ranges::move(next_plan.groups, std::back_inserter(asked.plan.groups));
    std::ranges::move(of_next, std::back_inserter(answers));
    return asked;
  }

  ClusterLeases leases_;
  ClusterCore core_;  // last: what runs in its threads may use what is above
};

}  // namespace

std::shared_ptr<ClusterTransport> MakeClusterTransport(std::shared_ptr<TopologySource> topology,
                                                       const ClusterTransportOptions& options) {
  return std::make_shared<ClusterTransportImpl>(std::move(topology), options);
}

}  // namespace kdn
