#include "kdn-client/blend/blender.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "kdn-client/blend/kv_rows.h"
#include "kdn-client/blend/rope.h"
#include "kdn-client/blend/selection.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

absl::Status CheckRuns(const BlendPrompt& prompt, uint32_t max_positions) {
  uint64_t end = 0;
  bool all_exact = true;
  for (size_t i = 0; i < prompt.runs.size(); ++i) {
    const ReusedRun& run = prompt.runs[i];
    const uint64_t run_end = uint64_t{run.begin} + run.tokens;
    if (run.tokens == 0) return InvalidArgument("run {}: it has no tokens; leave it out", i);
    if (run.begin < end) {
      return InvalidArgument("run {}: tokens [{}, {}) overlap the run before it, which ends at {}", i, run.begin,
                             run_end, end);
    }
    if (run_end >= prompt.tokens.size()) {
      return InvalidArgument(
          "run {}: tokens [{}, {}) of a prompt of {}; runs lie within it, and its last token is computed in any case",
          i, run.begin, run_end, prompt.tokens.size());
    }
    if (max_positions != 0 && uint64_t{run.source} + run.tokens > max_positions) {
      return InvalidArgument("run {}: computed at positions [{}, {}); the model has {}", i, run.source,
                             uint64_t{run.source} + run.tokens, max_positions);
    }
    if (run.exact && (!all_exact || run.source != run.begin)) {
      return InvalidArgument(
          "run {}: it is called exact, but tokens [{}, {}) were computed at {}, or a run before it is not exact", i,
          run.begin, run_end, run.source);
    }
    all_exact &= run.exact;
    end = run_end;
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const BlendModel& model, const BlendPrompt& prompt, const BlendSchedule& schedule) {
  if (prompt.tokens.empty()) return InvalidArgument("blending: the prompt has no tokens");
  const uint32_t max_positions = model.max_positions();
  if (max_positions != 0 && prompt.tokens.size() > max_positions) {
    return InvalidArgument("blending: a prompt of {} tokens; the model has {} positions", prompt.tokens.size(),
                           max_positions);
  }
  for (size_t i = 0; i < prompt.tokens.size(); ++i) {
    if (prompt.tokens[i] >= model.vocab_size()) {
      return InvalidArgument("blending: token {} is {}; the vocabulary has {}", i, prompt.tokens[i],
                             model.vocab_size());
    }
  }
  KDN_RETURN_IF_ERROR(ValidateSchedule(schedule, LayerCount(model.space())));
  return CheckRuns(prompt, max_positions);
}

// One prompt on its way through the model.
class BlendPass {
 public:
  BlendPass(BlendModel& model, const BlendPrompt& prompt, BlendSource& source, const BlendSchedule& schedule, KvRows kv)
      : model_(model),
        prompt_(prompt),
        source_(source),
        schedule_(schedule),
        kv_(std::move(kv)),
        run_of_(prompt.tokens.size(), kNoRun),
        present_(prompt.runs.size(), true),
        selected_(schedule.checks.size()) {
    for (uint32_t i = 0; i < prompt.runs.size(); ++i) {
      std::fill_n(run_of_.begin() + prompt.runs[i].begin, prompt.runs[i].tokens, i);
    }
  }

  absl::StatusOr<BlendReport> Run() {
    report_.prompt_tokens = static_cast<uint32_t>(prompt_.tokens.size());
    report_.kept.assign(kv_.layers(), 0);
    KDN_RETURN_IF_ERROR(Begin());
    uint32_t layer = 0;
    while (layer < kv_.layers()) {
      KDN_ASSIGN_OR_RETURN(const From from, Arrive(layer));
      if (from == From::kHere) {
        KDN_RETURN_IF_ERROR(RunLayer(layer));
        ++layer;
        continue;
      }
      ++report_.rewinds;
      if (from == From::kBeginning) {
        KDN_RETURN_IF_ERROR(Begin());
        layer = 0;
      } else {
        KDN_RETURN_IF_ERROR(model_.Rewind());
        rows_ = marked_rows_;
        layer = schedule_.checks.front().layer;
      }
    }
    Count();
    return std::move(report_);
  }

 private:
  static constexpr uint32_t kNoRun = UINT32_MAX;
  enum class From { kHere, kCheck, kBeginning };

  bool IsExact(uint32_t position) const {
    const uint32_t run = run_of_[position];
    return run != kNoRun && present_[run] && prompt_.runs[run].exact;
  }
  bool IsReused(uint32_t position) const {
    const uint32_t run = run_of_[position];
    return run != kNoRun && present_[run] && !prompt_.runs[run].exact;
  }

  absl::Status Begin() {
    rows_.clear();
    std::vector<Token> tokens;
    for (uint32_t position = 0; position < prompt_.tokens.size(); ++position) {
      if (IsExact(position)) continue;
      rows_.push_back(position);
      tokens.push_back(prompt_.tokens[position]);
    }
    return model_.Begin(tokens, rows_);
  }

  // Waits for a layer, once, and makes it ready: moves its keys. Says where the pass must go on from.
  absl::StatusOr<From> Arrive(uint32_t layer) {
    if (layer < arrived_) return From::kHere;
    arrived_ = layer + 1;
    std::vector<uint32_t> missing;
    const absl::Time begin = RealNow();
    KDN_RETURN_IF_ERROR(source_.Await(layer, missing));
    const absl::Time came = RealNow();
    report_.waited += came - begin;

    From from = From::kHere;
    for (const uint32_t run : missing) {
      if (run >= present_.size()) return Internal("blending: the source speaks of run {} of {}", run, present_.size());
      from = std::max(from, Lose(run, layer));
    }
    for (uint32_t run = 0; run < prompt_.runs.size(); ++run) {
      const ReusedRun& reused = prompt_.runs[run];
      if (!present_[run] || (!reused.exact && !IsCompared(layer))) continue;
      if (!kv_.AllFinite(layer, reused.begin, reused.tokens)) {
        from = std::max(from, Lose(run, layer));
      } else {
        KDN_RETURN_IF_ERROR(Move(layer, reused));
      }
    }
    report_.moved += RealNow() - came;
    return from;
  }

  // Whether cached rows that are not exact count in this layer: before the first check all of them are computed.
  bool IsCompared(uint32_t layer) const { return !schedule_.checks.empty() && layer >= schedule_.checks.front().layer; }

  From Lose(uint32_t run, uint32_t layer) {
    if (!present_[run]) return From::kHere;
    present_[run] = false;
    report_.missing.push_back(run);
    if (prompt_.runs[run].exact) return From::kBeginning;
    const bool dropped = !schedule_.checks.empty() && layer > schedule_.checks.front().layer;
    return dropped ? From::kCheck : From::kHere;
  }

  absl::Status Move(uint32_t layer, const ReusedRun& run) {
    if (run.begin == run.source || !model_.space().keys_after_rope) return absl::OkStatus();
    const LayerRun& geometry = kv_.Geometry(layer);
    if (geometry_ != &geometry) {  // layers of one geometry follow one another
      geometry_ = &geometry;
      rotations_.clear();
    }
    const int64_t by = int64_t{run.begin} - int64_t{run.source};
    auto at = rotations_.find(by);
    if (at == rotations_.end()) {
      KDN_ASSIGN_OR_RETURN(KeyRotation made, KeyRotation::By(by, geometry.rope, geometry.k_dim));
      at = rotations_.emplace(by, std::move(made)).first;
    }
    if (!at->second.IsIdentity()) kv_.RotateKeys(layer, run.begin, run.tokens, at->second);
    return absl::OkStatus();
  }

  absl::Status RunLayer(uint32_t layer) {
    const size_t check = CheckAt(layer);
    if (check == 0) {
      model_.Mark();
      marked_rows_ = rows_;
    }
    const size_t k_width = kv_.KeyWidth(layer);
    const size_t v_width = kv_.ValueWidth(layer);
    fresh_k_.resize(rows_.size() * k_width);
    fresh_v_.resize(rows_.size() * v_width);
    KDN_RETURN_IF_ERROR(model_.Project(layer, fresh_k_, fresh_v_));

    std::vector<uint32_t> going(rows_.size());
    std::iota(going.begin(), going.end(), 0U);
    if (check < schedule_.checks.size()) {
      going = Select(layer, check);
      if (going.size() < rows_.size()) KDN_RETURN_IF_ERROR(model_.Keep(going));
    }
    std::vector<uint32_t> positions;
    positions.reserve(going.size());
    for (const uint32_t row : going) {
      kv_.WriteKeys(layer, rows_[row], fresh_k_.data() + row * k_width);
      if (v_width != 0) kv_.WriteValues(layer, rows_[row], fresh_v_.data() + row * v_width);
      positions.push_back(rows_[row]);
    }
    rows_ = std::move(positions);
    report_.computed_rows += rows_.size();
    report_.kept[layer] = static_cast<uint32_t>(
        std::count_if(rows_.begin(), rows_.end(), [&](uint32_t position) { return IsReused(position); }));
    return model_.Finish(layer);
  }

  // The check that `layer` has, or their number.
  size_t CheckAt(uint32_t layer) const {
    const auto at = std::find_if(schedule_.checks.begin(), schedule_.checks.end(),
                                 [&](const BlendCheck& check) { return check.layer == layer; });
    return static_cast<size_t>(at - schedule_.checks.begin());
  }

  // Indices of the rows that go on from a check. What was selected once stays so when the pass comes here again: by
  // then, computed rows lie where the cached ones were.
  std::vector<uint32_t> Select(uint32_t layer, size_t check) {
    if (selected_[check].empty()) {
      std::vector<uint32_t> candidates;
      std::vector<double> scores;
      for (uint32_t row = 0; row < rows_.size(); ++row) {
        if (!IsReused(rows_[row])) continue;
        candidates.push_back(row);
        scores.push_back(Score(layer, row));
      }
      selected_[check].assign(prompt_.tokens.size(), false);
      for (const uint32_t highest : HighestRows(scores, KeptCount(schedule_.checks[check].ratio, ReusedTokens()))) {
        selected_[check][rows_[candidates[highest]]] = true;
      }
    }
    std::vector<uint32_t> going;
    for (uint32_t row = 0; row < rows_.size(); ++row) {
      if (!IsReused(rows_[row]) || selected_[check][rows_[row]]) going.push_back(row);
    }
    return going;
  }

  double Score(uint32_t layer, uint32_t row) {
    const uint32_t position = rows_[row];
    switch (schedule_.policy) {
      case BlendPolicy::kRandom:
        return RandomScore(schedule_.seed, position);
      case BlendPolicy::kFirstTokens: {
        const ReusedRun& run = prompt_.runs[run_of_[position]];
        return -static_cast<double>(run.source + (position - run.begin));
      }
      case BlendPolicy::kDeviation:
        break;
    }
    double score = 0;
    if (schedule_.metric != BlendMetric::kValue) {
      cached_.resize(kv_.KeyWidth(layer));
      kv_.ReadKeys(layer, position, cached_.data());
      score += SquaredDistance(cached_, fresh_k_.data() + row * cached_.size());
    }
    if (schedule_.metric != BlendMetric::kKey && kv_.ValueWidth(layer) != 0) {
      cached_.resize(kv_.ValueWidth(layer));
      kv_.ReadValues(layer, position, cached_.data());
      score += SquaredDistance(cached_, fresh_v_.data() + row * cached_.size());
    }
    return score;
  }

  uint32_t ReusedTokens() const {
    uint32_t tokens = 0;
    for (size_t run = 0; run < prompt_.runs.size(); ++run) {
      if (present_[run] && !prompt_.runs[run].exact) tokens += prompt_.runs[run].tokens;
    }
    return tokens;
  }

  void Count() {
    uint32_t exact_reused = 0;
    for (uint32_t position = 0; position < prompt_.tokens.size(); ++position) exact_reused += IsExact(position) ? 1 : 0;
    report_.reused_tokens = ReusedTokens();
    report_.fresh_tokens = report_.prompt_tokens - report_.reused_tokens - exact_reused;
    while (report_.exact_tokens < report_.prompt_tokens && !IsReused(report_.exact_tokens)) ++report_.exact_tokens;
    report_.full_rows = uint64_t{report_.prompt_tokens - exact_reused} * kv_.layers();
  }

  BlendModel& model_;
  const BlendPrompt& prompt_;
  BlendSource& source_;
  const BlendSchedule& schedule_;
  const KvRows kv_;
  std::vector<uint32_t> run_of_;  // by position
  std::vector<bool> present_;     // by run
  uint32_t arrived_ = 0;          // layers that were awaited

  std::vector<uint32_t> rows_;         // positions of the rows that are under way
  std::vector<uint32_t> marked_rows_;  // … when the first check began
  std::vector<float> fresh_k_;
  std::vector<float> fresh_v_;
  std::vector<float> cached_;                // of one row
  std::vector<std::vector<bool>> selected_;  // by check: positions that were; empty: not yet

  const LayerRun* geometry_ = nullptr;  // that `rotations_` are for
  std::map<int64_t, KeyRotation> rotations_;
  BlendReport report_;
};

}  // namespace

absl::StatusOr<BlendReport> Blend(BlendModel& model, const BlendPrompt& prompt, BlendSource& source,
                                  const BlendOptions& options) {
  KDN_RETURN_IF_ERROR(CheckPrompt(model, prompt, options.schedule));
  KDN_ASSIGN_OR_RETURN(KvRows kv, KvRows::Over(model.space(), prompt.kv, static_cast<uint32_t>(prompt.tokens.size())));
  return BlendPass(model, prompt, source, options.schedule, std::move(kv)).Run();
}

}  // namespace kdn
