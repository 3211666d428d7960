#include "kdn-client/cluster/cluster_lookup.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "kdn-client/call_rules.h"
#include "kdn-client/cluster/in_parallel.h"
#include "kdn-client/cluster/reader_plan.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// What is asked again of other readers, as none of the first held it, may take so many times as long, and this.
constexpr int kSecondRoundFactor = 4;
constexpr absl::Duration kSecondRoundLeast = absl::Milliseconds(100);

// What is known of a chunk after readers have been asked for it.
struct Answer {
  FoundChunk found;
  bool answered = false;  // by a node; otherwise `failure` says why not
  absl::Status failure;
};

// Shared by all that is asked for one call, some of which may go on when the call is over.
class LookupCall : public std::enable_shared_from_this<LookupCall> {
 public:
  LookupCall(ClusterCore& core, TopologyViewPtr view, const SpaceId& space, std::span<const ChunkKey> keys,
             Fidelity least, absl::Time deadline)
      : core_(core),
        view_(std::move(view)),
        space_(space),
        keys_(keys.begin(), keys.end()),
        least_(least),
        deadline_(deadline) {
    readers_.reserve(keys_.size());
    for (const ChunkKey& key : keys_) readers_.push_back(view_->topology->Readers(key));
  }

  // Answers in the order of `asked`. What the nodes that are asked first do not have is asked once more when all have
  // answered, so that each of the others is asked once for all of it.
  std::vector<Answer> Ask(std::span<const SoughtChunk> asked, bool may_hedge, absl::Time deadline) {
    const absl::Time begun = Clock::Real().Now();
    std::vector<Answer> answers(asked.size());
    std::vector<ReaderMask> tried(asked.size());
    const ReaderPlan plan = PlanReaders(*view_, readers_, asked);
    for (const uint32_t at : plan.stranded) {
      answers[at] = Stranded(asked[at]);
      tried[at] = AllReaders(readers_[asked[at].chunk]);
    }
    InParallel(core_.helpers, plan.groups.size(), core_.options.max_parallel, [&](size_t i) {
      const NodeGroup& group = plan.groups[i];
      GroupAnswers of_group = AskGroup(group, may_hedge, deadline);
      for (size_t k = 0; k < group.at.size(); ++k) {
        answers[group.at[k]] = std::move(of_group.answers[k]);
        tried[group.at[k]] = of_group.tried[k];
      }
    });

    std::vector<SoughtChunk> again;
    std::vector<size_t> at;
    bool all_answered = true;
    for (size_t i = 0; i < answers.size(); ++i) {
      if (!MayAskAgain(answers[i], asked[i].chunk, tried[i])) continue;
      all_answered &= answers[i].answered;
      again.push_back({.chunk = asked[i].chunk, .tried = tried[i], .miss = answers[i].found.miss});
      at.push_back(i);
    }
    const absl::Time now = Clock::Real().Now();
    if (again.empty() || now >= deadline) return answers;
    // Chunks that settled readers do not hold are hardly anywhere else: a node that hangs must not hold up a cold
    // prompt.
    const absl::Time patience = now + kSecondRoundFactor * (now - begun) + kSecondRoundLeast;
    std::vector<Answer> others =
        Ask(again, /*may_hedge=*/false, all_answered ? std::min(deadline, patience) : deadline);
    for (size_t k = 0; k < at.size(); ++k) Merge(std::move(others[k]), answers[at[k]]);
    return answers;
  }

 private:
  Answer Stranded(const SoughtChunk& asked) const {
    const Partition partition = view_->topology->PartitionOf(keys_[asked.chunk]);
    Answer answer;
    answer.failure =
        Unavailable("no node that is up holds partition {} (epoch {})", partition, view_->topology->epoch());
    answer.found.miss = asked.tried == 0 ? MissFromCall(answer.failure) : asked.miss;
    return answer;
  }

  struct GroupAnswers {
    std::vector<Answer> answers;
    std::vector<ReaderMask> tried;  // who has no more to say of each chunk
  };

  // Asks the group's node, and others in its place where it is slow or fails.
  GroupAnswers AskGroup(const NodeGroup& group, bool may_hedge, absl::Time deadline) {
    if (may_hedge && group.has_others && core_.Hedges()) return Hedged(group);
    GroupAnswers result = {.answers = AskNode(group, deadline), .tried = {}};
    for (const SoughtChunk& asked : group.asked) result.tried.push_back(asked.tried);
    if (group.has_others && !result.answers.front().answered) {
      core_.counts.failed_over.fetch_add(1, std::memory_order_relaxed);
    }
    return result;
  }

  bool MayAskAgain(const Answer& answer, uint32_t chunk, ReaderMask tried) const {
    if (tried == AllReaders(readers_[chunk])) return false;
    return answer.answered ? MayBeElsewhere(answer.found.miss) : !absl::IsInvalidArgument(answer.failure);
  }

  void Merge(Answer other, Answer& answer) {
    const bool hit = other.answered && other.found.miss.reason == MissReason::kNone;
    if (hit && answer.answered) core_.counts.second_reader.fetch_add(1, std::memory_order_relaxed);
    if (hit || !answer.answered) {
      answer = std::move(other);
      return;
    }
    answer.found.miss = Telling(answer.found.miss, other.found.miss);
  }

  std::vector<Answer> AskNode(const NodeGroup& group, absl::Time deadline) {
    std::vector<Answer> answers(group.asked.size());
    absl::StatusOr<std::vector<FoundChunk>> found = Call(group, deadline);
    for (size_t i = 0; i < answers.size(); ++i) {
      if (found.ok()) {
        answers[i].found = std::move((*found)[i]);
        answers[i].answered = true;
      } else {
        answers[i].failure = found.status();
        answers[i].found.miss = MissFromCall(found.status());
      }
    }
    return answers;
  }

  absl::StatusOr<std::vector<FoundChunk>> Call(const NodeGroup& group, absl::Time deadline) {
    std::vector<ChunkKey> keys;
    keys.reserve(group.asked.size());
    std::vector<uint32_t> positions;
    positions.reserve(group.asked.size());
    for (const SoughtChunk& asked : group.asked) {
      keys.push_back(keys_[asked.chunk]);
      positions.push_back(asked.chunk);
    }
    if (positions.size() == keys_.size() && std::ranges::is_sorted(positions)) positions.clear();  // the whole prompt
    core_.counts.node_calls.fetch_add(1, std::memory_order_relaxed);
    ClusterNode& node = view_->NodeAt(group.slot);
    ClusterNode::Call call(node);
    absl::StatusOr<std::vector<FoundChunk>> found =
        node.transport().LookupPart(space_, keys, positions, least_, deadline);
    if (found.ok() && found->size() != keys.size()) {
      found = DataLoss("{} answered for {} chunks of {}", view_->NameOf(group.slot), found->size(), keys.size());
    }
    core_.Ended(call, found.status(), core_.lookups);
    return found;
  }

  // What the winner of a race between the group's node and all other readers says.
  GroupAnswers Hedged(const NodeGroup& group) {
    struct State {
      NodeGroup group;
      std::vector<SoughtChunk> elsewhere;  // those that others may have
      std::vector<size_t> at;              // where these are in the group
      std::vector<Answer> answers;         // the winner's
      bool others_won = false;
    };
    const auto state = std::make_shared<State>();
    state->group = group;
    for (size_t i = 0; i < group.asked.size(); ++i) {
      if (group.asked[i].tried == AllReaders(readers_[group.asked[i].chunk])) continue;
      state->elsewhere.push_back(group.asked[i]);
      state->at.push_back(i);
    }

    const auto race = std::make_shared<Race>(core_.attempts, deadline_);
    const Race::Ask ask = [self = shared_from_this(), state,
                           weak = std::weak_ptr<Race>(race)](Race::Attempt& attempt) -> absl::Status {
      const bool others = attempt.replica == 1;
      std::vector<Answer> answers = others ? self->Ask(state->elsewhere, /*may_hedge=*/false, self->deadline_)
                                           : self->AskNode(state->group, self->deadline_);
      const bool any = std::any_of(answers.begin(), answers.end(), [](const Answer& a) { return a.answered; });
      if (!any) return Apart(answers.front().failure);
      // Run returns only once this has returned, if it won.
      if (weak.lock()->Claim(attempt)) {
        state->answers = std::move(answers);
        state->others_won = others;
      }
      return absl::OkStatus();
    };
    const Race::Outcome outcome =
        race->Run(std::vector<size_t>{0, 1}, ask, core_.RulesFor(core_.lookups, view_->nodes[group.slot].node));
    core_.counts.failed_over.fetch_add(outcome.failed_over, std::memory_order_relaxed);

    // Out of time, the winner may still be at work on its answers.
    const bool won = outcome.won && outcome.status.ok();
    GroupAnswers result = {.answers = std::vector<Answer>(group.asked.size()), .tried = {}};
    for (const SoughtChunk& asked : group.asked) result.tried.push_back(asked.tried);
    if (won && !state->others_won) {
      result.answers = std::move(state->answers);
      return result;
    }
    const absl::Status why =
        outcome.status.ok() ? Unavailable("{} did not answer", view_->NameOf(group.slot)) : outcome.status;
    const bool node_failed = std::ranges::count(outcome.failed, size_t{0}) > 0;
    for (size_t i = 0; i < group.asked.size(); ++i) {
      result.answers[i].failure = why;
      result.answers[i].found.miss = MissFromCall(why);
      // Where others won the node itself has not been heard: it can still be asked for what they could not be asked
      // for.
      const bool may_ask_node = won && !node_failed;
      result.tried[i] = AllReaders(readers_[group.asked[i].chunk]) & ~(may_ask_node ? group.self[i] : ReaderMask{0});
    }
    if (!won) return result;
    for (size_t k = 0; k < state->at.size(); ++k) {
      const size_t i = state->at[k];
      result.answers[i] = std::move(state->answers[k]);
      // That they do not hold it is no answer for the node, which may be the only one that is filled.
      const bool hit = result.answers[i].answered && result.answers[i].found.miss.reason == MissReason::kNone;
      if (hit) result.tried[i] = AllReaders(readers_[group.asked[i].chunk]);
    }
    return result;
  }

  ClusterCore& core_;
  const TopologyViewPtr view_;
  const SpaceId space_;
  const std::vector<ChunkKey> keys_;
  const Fidelity least_;
  const absl::Time deadline_;
  std::vector<Topology::ReaderList> readers_;  // by key
};

}  // namespace

absl::StatusOr<std::vector<FoundChunk>> LookupInCluster(ClusterCore& core, TopologyViewPtr view, const SpaceId& space,
                                                        std::span<const ChunkKey> keys, Fidelity least,
                                                        absl::Time deadline) {
  std::vector<FoundChunk> found;
  if (keys.empty()) return found;
  const auto call = std::make_shared<LookupCall>(core, std::move(view), space, keys, least, deadline);
  std::vector<SoughtChunk> asked(keys.size());
  for (uint32_t i = 0; i < asked.size(); ++i) asked[i].chunk = i;
  std::vector<Answer> answers = call->Ask(asked, /*may_hedge=*/true, deadline);
  const bool any = std::any_of(answers.begin(), answers.end(), [](const Answer& answer) { return answer.answered; });
  if (!any) return answers.front().failure;
  found.reserve(answers.size());
  for (Answer& answer : answers) found.push_back(std::move(answer.found));
  core.recent_lookups.Note(keys, found);
  return found;
}

}  // namespace kdn
