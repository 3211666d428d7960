#include "placement/analytics/collector.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "storage/analytics/snapshot_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr uint32_t kPrefixesOfANode = 128;

Demand GreaterOf(const Demand& a, const Demand& b) {
  return {.chunks = std::max(a.chunks, b.chunks),
          .tokens = std::max(a.tokens, b.tokens),
          .bytes = std::max(a.bytes, b.bytes)};
}

// A hit that turns out to be a miss takes back what was counted; a counter of Prometheus must not.
void RaiseTo(const CacheCounts& counted, CacheCounts& told) {
  told.requests = std::max(told.requests, counted.requests);
  told.asked = GreaterOf(told.asked, counted.asked);
  for (size_t i = 0; i < kMissCauseCount; ++i) told.missed[i] = GreaterOf(told.missed[i], counted.missed[i]);
  for (size_t i = 0; i < kCountedTiers; ++i) {
    told.found[i] = GreaterOf(told.found[i], counted.found[i]);
    told.delivered[i] = GreaterOf(told.delivered[i], counted.delivered[i]);
  }
  told.stored = GreaterOf(told.stored, counted.stored);
  told.refused_stores = std::max(told.refused_stores, counted.refused_stores);
  told.evicted_wanted = std::max(told.evicted_wanted, counted.evicted_wanted);
  told.prefill_seconds_saved = std::max(told.prefill_seconds_saved, counted.prefill_seconds_saved);
  for (const BlendField& field : kBlendFields) {
    told.blend.*field.value = std::max(told.blend.*field.value, counted.blend.*field.value);
  }
  for (size_t i = 0; i < kBlendRefusalCount; ++i) {
    told.blend.refused[i] = std::max(told.blend.refused[i], counted.blend.refused[i]);
  }
}

}  // namespace

size_t ClusterReport::answered() const {
  return static_cast<size_t>(std::ranges::count_if(nodes, [](const NodeReport& node) { return node.answered; }));
}

size_t ClusterReport::stale() const {
  return static_cast<size_t>(
      std::ranges::count_if(nodes, [](const NodeReport& node) { return node.node.Serves() && !node.answered; }));
}

Collector::Collector(Options options, NodeAnalyticsSource& source, History& history, const Clock& clock)
    : options_(std::move(options)), source_(source), history_(history), clock_(clock) {}

// What came of the questions of one round. Outlives the round where an answer is late.
struct Collector::Answer {
  Mutex mu;
  CondVar changed;
  size_t running ABSL_GUARDED_BY(mu) = 0;
  Answers got ABSL_GUARDED_BY(mu);
};

Collector::Answers Collector::AskAll(const Topology& topology, bool curves) {
  const auto answer = std::make_shared<Answer>();
  std::set<std::string> addresses;
  for (const NodeInfo& node : topology.parts().nodes) {
    if (!node.Serves()) continue;
    addresses.insert(node.address);
    v1::GetAnalyticsRequest request;
    request.set_without_curves(!curves);
    request.set_max_hot_prefixes(kPrefixesOfANode);
    if (const auto known = known_.find(node.id); known != known_.end()) {
      request.set_events_after(known->second.events_seen);
    }
    {
      MutexLock lock(answer->mu);
      while (answer->running >= options_.most_asked) answer->changed.Wait(answer->mu);
      ++answer->running;
    }
    source_.Ask(node.address, request, options_.timeout,
                [answer, id = node.id](absl::StatusOr<v1::AnalyticsSnapshot> message) {
                  absl::StatusOr<AnalyticsSnapshot> snapshot =
                      message.ok() ? FromWire(*message) : absl::StatusOr<AnalyticsSnapshot>(message.status());
                  MutexLock lock(answer->mu);
                  answer->got.insert_or_assign(id, std::move(snapshot));
                  --answer->running;
                  answer->changed.NotifyAll();
                });
  }
  source_.Keep(addresses);
  MutexLock lock(answer->mu);
  while (answer->running > 0) answer->changed.Wait(answer->mu);
  return std::move(answer->got);
}

void Collector::TakeEvents(const std::string& node, Known& known, const AnalyticsSnapshot& snapshot) {
  if (known.last != nullptr && known.last->since != snapshot.since) {
    known.events_seen = 0;  // it started anew and counts from 1; what it left out comes with the next round
    return;
  }
  for (const Event& event : snapshot.events) {
    if (event.sequence <= known.events_seen) continue;
    known.events_seen = event.sequence;
    events_.push_back({.time = event.time, .node = node, .event = event});
  }
}

void Collector::NoteStates(const Topology& topology, absl::Time now) {
  std::map<std::string, NodeState> states;
  for (const NodeInfo& node : topology.parts().nodes) states[node.id] = node.state;
  if (noted_ != nullptr) {
    for (const auto& [id, state] : states) {
      const auto before = states_.find(id);
      if (before == states_.end() || before->second != state) {
        events_.push_back({.time = now, .node = id, .state = state});
      }
    }
    for (const auto& [id, state] : states_) {
      if (!states.contains(id)) events_.push_back({.time = now, .node = id});
    }
  }
  states_ = std::move(states);
}

void Collector::AddCurves(const Answers& answers) {
  curves_ = AnalyticsSnapshot();
  curve_nodes_ = 0;
  for (const auto& [id, snapshot] : answers) {
    if (!snapshot.ok()) continue;
    AnalyticsSnapshot curves;
    curves.curve = snapshot->curve;
    curves.curve_rate = snapshot->curve_rate;
    for (const SpaceAnalytics& space : snapshot->spaces) {
      if (!space.curve.has_value()) continue;
      SpaceAnalytics& alone = curves.spaces.emplace_back();
      alone.space = space.space;
      alone.curve = space.curve;
    }
    curves_.Add(curves);
    ++curve_nodes_;
  }
}

void Collector::RememberNames(AnalyticsSnapshot& total) {
  constexpr size_t kMostNames = 1024;
  for (SpaceAnalytics& space : total.spaces) {
    if (space.space.IsZero()) continue;
    if (const auto known = names_.find(space.space); space.description.empty()) {
      if (known != names_.end()) space.description = known->second;
    } else if (known != names_.end() || names_.size() < kMostNames) {
      names_[space.space] = space.description;
    }
  }
}

void Collector::Record(const Answers& answers, const ClusterReport& report) {
  std::vector<NodeReading> readings;
  for (const auto& [id, snapshot] : answers) {
    if (!snapshot.ok()) continue;
    AnalyticsSnapshot priced = *snapshot;
    priced.LearnSpeeds(report.total);
    readings.push_back({.node = id, .since = snapshot->since, .taken = snapshot->taken, .counts = CountsOf(priced)});
  }
  CacheGauges gauges = {.nodes = static_cast<uint32_t>(report.nodes.size()),
                        .nodes_answered = static_cast<uint32_t>(report.answered())};
  for (size_t i = 0; i < kCountedTiers; ++i) {
    gauges.held_bytes[i] = report.total.tiers[i].held_bytes;
    gauges.budget_bytes[i] = report.total.tiers[i].budget_bytes;
  }
  const absl::StatusOr<CountsBySpace> recorded = history_.Record(readings, gauges);
  if (!recorded.ok() && !history_fails_) {
    spdlog::error("{}; charts have a gap until it works again, nothing else suffers", MessageOf(recorded.status()));
  }
  history_fails_ = !recorded.ok();
  MutexLock lock(mu_);
  if (!recorded.ok()) {
    ++totals_.failed_records;
    return;
  }
  for (const auto& [space, counts] : *recorded) {
    counted_[space] += counts;
    RaiseTo(counted_[space], totals_.counts[space]);
  }
}

void Collector::Round() {
  const TopologyPtr topology = options_.topology();
  if (topology == nullptr) return;
  const auto began = std::chrono::steady_clock::now();
  const Totals before = totals();
  const bool curves = before.rounds % std::max<uint32_t>(options_.rounds_a_curve, 1) == 0;
  Answers answers = AskAll(*topology, curves);
  const absl::Time now = clock_.Now();
  if (curves) AddCurves(answers);
  NoteStates(*topology, now);
  noted_ = topology;

  auto report = std::make_shared<ClusterReport>();
  report->cluster = topology->cluster();
  report->epoch = topology->epoch();
  report->taken = now;
  size_t unanswered = 0;
  std::map<std::string, Known> known;
  for (const NodeInfo& node : topology->parts().nodes) {
    Known& of_node = known[node.id];
    if (const auto old = known_.find(node.id); old != known_.end()) of_node = std::move(old->second);
    NodeReport& out = report->nodes.emplace_back();
    out.node = node;
    const auto answer = answers.find(node.id);
    if (answer == answers.end()) {
      out.error = "it is down";
    } else if (!answer->second.ok()) {
      ++unanswered;
      out.error = MessageOf(answer->second.status());
      if (out.error.empty()) out.error = absl::StatusCodeToString(answer->second.status().code());
    } else {
      AnalyticsSnapshot kept = *answer->second;
      TakeEvents(node.id, of_node, kept);
      kept.events.clear();
      kept.curve = ReuseCurve();
      kept.curve_rate = 0;
      for (SpaceAnalytics& space : kept.spaces) space.curve.reset();
      of_node.last = std::make_shared<const AnalyticsSnapshot>(std::move(kept));
      of_node.answered_at = now;
      out.answered = true;
    }
    out.answered_at = of_node.answered_at;
    out.last = of_node.last;
    if (of_node.last != nullptr) report->total.Add(*of_node.last);
  }
  known_ = std::move(known);
  report->total.curve = curves_.curve;
  report->total.curve_rate = curves_.curve_rate;
  for (SpaceAnalytics& space : report->total.spaces) {
    const auto curve = std::ranges::find(curves_.spaces, space.space, &SpaceAnalytics::space);
    if (curve != curves_.spaces.end()) space.curve = curve->curve;
  }
  RememberNames(report->total);
  report->curve_nodes = curve_nodes_;
  std::ranges::stable_sort(events_, {}, &ClusterEvent::time);
  while (events_.size() > options_.most_events) events_.pop_front();
  report->events.assign(events_.begin(), events_.end());

  Record(answers, *report);
  MutexLock lock(mu_);
  ++totals_.rounds;
  totals_.unanswered += unanswered;
  totals_.last_round = absl::FromChrono(std::chrono::steady_clock::now() - began);
  latest_ = std::move(report);
}

ClusterReportPtr Collector::Latest() const {
  MutexLock lock(mu_);
  return latest_;
}

Collector::Totals Collector::totals() const {
  MutexLock lock(mu_);
  return totals_;
}

}  // namespace kdn
