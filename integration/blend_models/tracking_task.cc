#include "integration/blend_models/tracking_task.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "storage/base/split_mix.h"

namespace kdn::blend_models {

uint64_t TrackingTask::Next() { return SplitMix64(state_); }

// The high half of a product: the bias against small bounds is below 2^-26 and nothing here can see it.
uint32_t TrackingTask::Below(uint32_t bound) { return static_cast<uint32_t>(((Next() >> 32) * bound) >> 32); }

template <typename Range>
void TrackingTask::Shuffle(Range& range) {
  for (uint32_t i = static_cast<uint32_t>(range.size()); i > 1; --i) std::swap(range[i - 1], range[Below(i)]);
}

TrackingTask::Statements TrackingTask::DrawStatements() {
  std::array<Token, kTrackingVariables> variables;
  std::iota(variables.begin(), variables.end(), 0U);
  Shuffle(variables);
  const auto unassigned = std::span(variables).subspan(kTotal);

  Statements statements;
  for (uint32_t i = 0; i < kTotal; ++i) {
    const Token value = kTrackingFirstValue + Below(kTrackingValues);
    statements[i] = {.variable = variables[i], .argument = value, .resolved = value, .hops = 0};
  }
  std::array<uint32_t, kTrackingCrossReferences> chain{};  // the cross-chunk references of the chunk before
  for (uint32_t chunk = 0; chunk < kTrackingChunks; ++chunk) {
    const uint32_t base = chunk * kTrackingStatements;
    // Places in random order: cross-chunk references take the first ones, local references the next.
    std::array<uint32_t, kTrackingStatements> places;
    std::iota(places.begin(), places.end(), base);
    Shuffle(places);
    auto literals = std::span(places).subspan(kTrackingCrossReferences + kTrackingLocalReferences);
    std::ranges::sort(literals);

    std::array<uint32_t, kTrackingCrossReferences> cross{};
    for (uint32_t j = 0; j < kTrackingCrossReferences; ++j) {
      cross[j] = places[j];
      Statement& statement = statements[places[j]];
      if (chunk == 0 || Below(10) == 0) {
        statement.argument = unassigned[Below(static_cast<uint32_t>(unassigned.size()))];
        statement.resolved = kTrackingUnknown;
        continue;
      }
      const bool chained = chunk >= 2 && Below(2) == 0;
      const Statement& target = statements[chained ? chain[Below(kTrackingCrossReferences)] : Below(base)];
      statement.argument = target.variable;
      statement.resolved = target.resolved;
      statement.hops = target.hops + 1;
    }
    chain = cross;

    for (uint32_t j = 0; j < kTrackingLocalReferences; ++j) {
      const uint32_t place = places[kTrackingCrossReferences + j];
      const auto earlier = std::ranges::lower_bound(literals, place) - literals.begin();
      if (earlier == 0) continue;
      const Statement& target = statements[literals[Below(static_cast<uint32_t>(earlier))]];
      statements[place].argument = target.variable;
      statements[place].resolved = target.resolved;
    }
  }
  return statements;
}

TrackingPrompt TrackingTask::Draw(uint32_t hops) {
  hops = std::min(hops, kTrackingMaxHops);
  // Every number of hops is in a good share of draws, so this ends soon.
  for (;;) {
    const Statements statements = DrawStatements();
    std::vector<const Statement*> fitting;
    for (const Statement& statement : statements) {
      if (statement.resolved != kTrackingUnknown && statement.hops == hops) fitting.push_back(&statement);
    }
    if (fitting.empty()) continue;
    const Statement& asked = *fitting[Below(static_cast<uint32_t>(fitting.size()))];
    TrackingPrompt prompt{.segments = {}, .question = {kTrackingQuestion, asked.variable}};
    prompt.answer = asked.resolved;
    prompt.hops = hops;
    for (uint32_t chunk = 0; chunk < kTrackingChunks; ++chunk) {
      std::vector<Token>& segment = prompt.segments.emplace_back(1, kTrackingSeparator);
      for (uint32_t i = 0; i < kTrackingStatements; ++i) {
        const Statement& statement = statements[chunk * kTrackingStatements + i];
        segment.push_back(statement.variable);
        segment.push_back(statement.argument);
      }
    }
    return prompt;
  }
}

}  // namespace kdn::blend_models
