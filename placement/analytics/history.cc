#include "placement/analytics/history.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "storage/base/buffer.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Rows: "n" NODE -> NodeBaseline; "p" STEP BEGIN SERIES -> HistoryPoint. Numbers are big endian, so that rows of one
// step lie in the order of time, and what is too old is one range.
constexpr char kBaselineRows = 'n';
constexpr char kPointRows = 'p';
constexpr char kClusterSeries = 'c';
constexpr char kSpaceSeries = 's';
constexpr absl::Duration kForgetEvery = absl::Minutes(10);

void AppendNumber(uint64_t value, size_t bytes, std::string& out) {
  for (size_t i = bytes; i > 0; --i) out.push_back(static_cast<char>(value >> (8 * (i - 1)) & 0xff));
}

uint64_t NumberAt(std::string_view row, size_t at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(row[at + i]);
  return value;
}

constexpr size_t kStepAt = 1;
constexpr size_t kBeginAt = kStepAt + 4;
constexpr size_t kSeriesAt = kBeginAt + 8;

std::string PointRow(int64_t step, int64_t begin) {
  std::string row(1, kPointRows);
  AppendNumber(static_cast<uint64_t>(step), 4, row);
  AppendNumber(static_cast<uint64_t>(std::max<int64_t>(begin, 0)), 8, row);
  return row;
}

std::string SeriesOf(const SpaceId& space) { return std::string(1, kSpaceSeries).append(AsStringView(space.span())); }

std::string BaselineRow(const std::string& node) { return std::string(1, kBaselineRows) + node; }

int64_t FloorTo(int64_t seconds, int64_t step) { return seconds - ((seconds % step) + step) % step; }

// The part of [from, to] that falls into [begin, end]; all of it where from and to are the same moment within.
double Overlap(double from, double to, double begin, double end) {
  if (to <= from) return from >= begin && from < end ? 1 : 0;
  return std::max(0.0, std::min(to, end) - std::max(from, begin)) / (to - from);
}

void Write(const CacheGauges& gauges, v1::CacheGauges& out) {
  out.set_nodes(gauges.nodes);
  out.set_nodes_answered(gauges.nodes_answered);
  for (const uint64_t bytes : gauges.held_bytes) out.add_held_bytes(bytes);
  for (const uint64_t bytes : gauges.budget_bytes) out.add_budget_bytes(bytes);
}

CacheGauges ReadGauges(const v1::CacheGauges& message) {
  CacheGauges gauges = {.nodes = message.nodes(), .nodes_answered = message.nodes_answered()};
  for (size_t i = 0; i < kCountedTiers; ++i) {
    const int at = static_cast<int>(i);
    if (at < message.held_bytes_size()) gauges.held_bytes[i] = message.held_bytes(at);
    if (at < message.budget_bytes_size()) gauges.budget_bytes[i] = message.budget_bytes(at);
  }
  return gauges;
}

// A row that cannot be read counts as none: a history is not worth stopping a daemon for.
std::optional<HistoryRange::Point> ReadPoint(std::string_view value) {
  v1::HistoryPoint message;
  if (!message.ParseFromArray(value.data(), static_cast<int>(value.size()))) return std::nullopt;
  absl::StatusOr<CacheCounts> counts = FromWire(message.counts());
  if (!counts.ok()) return std::nullopt;
  HistoryRange::Point point;
  point.counts = *counts;
  if (message.has_gauges()) point.gauges = ReadGauges(message.gauges());
  return point;
}

}  // namespace

// What was counted within the same time, by space.
struct History::Pending {
  double from = 0;  // Unix seconds
  CountsBySpace counts = {};
};

absl::StatusOr<std::unique_ptr<History>> History::Open(const Options& options, const Clock& clock) {
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<HistoryRows> rows, HistoryRows::Open(options.path));
  std::unique_ptr<History> history(new History(options, clock, std::move(rows)));
  KDN_RETURN_IF_ERROR(history->Load());
  return history;
}

absl::Status History::Load() {
  MutexLock lock(mu_);
  std::map<std::string, Baseline> baselines;
  const auto load = [&baselines](std::string_view row, std::string_view value) {
    v1::NodeBaseline message;
    if (!message.ParseFromArray(value.data(), static_cast<int>(value.size()))) return;
    Baseline baseline = {.since = absl::FromUnixMillis(message.since_unix_ms()),
                         .taken = absl::FromUnixMillis(message.taken_unix_ms()),
                         .seen = absl::FromUnixMillis(message.seen_unix_ms()),
                         .counts = {}};
    for (const v1::NodeBaseline::Space& space : message.spaces()) {
      absl::StatusOr<SpaceId> id = space.space_id().empty() ? SpaceId() : SpaceId::FromBytes(AsBytes(space.space_id()));
      absl::StatusOr<CacheCounts> counts = FromWire(space.counts());
      if (!id.ok() || !counts.ok()) return;
      baseline.counts[*id] = *counts;
    }
    baselines[std::string(row.substr(1))] = std::move(baseline);
  };
  KDN_RETURN_IF_ERROR(rows_->Visit(std::string(1, kBaselineRows), std::string(1, kBaselineRows + 1), load));
  baselines_ = std::move(baselines);
  return LoadSpaces();
}

absl::Status History::LoadSpaces() {
  const int64_t step = absl::ToInt64Seconds(options_.resolutions.back().step);
  std::set<SpaceId> spaces;
  const auto see = [&spaces](std::string_view row, std::string_view) {
    if (row.size() != kSeriesAt + 1 + kDigestSize || row[kSeriesAt] != kSpaceSeries) return;
    if (absl::StatusOr<SpaceId> id = SpaceId::FromBytes(AsBytes(row.substr(kSeriesAt + 1))); id.ok()) {
      spaces.insert(*id);
    }
  };
  KDN_RETURN_IF_ERROR(rows_->Visit(PointRow(step, 0), PointRow(step + 1, 0), see));
  spaces_ = std::move(spaces);
  return absl::OkStatus();
}

SpaceId History::KeptAs(const SpaceId& space, const std::set<SpaceId>& apart) const {
  if (space.IsZero() || apart.contains(space)) return space;
  return apart.size() - apart.count(SpaceId()) < options_.most_spaces ? space : SpaceId();
}

absl::Status History::AddTo(const std::string& row, const CacheCounts& counts, const CacheGauges* gauges,
                            HistoryRows::Changes& changes) {
  KDN_ASSIGN_OR_RETURN(const std::optional<std::string> old, rows_->Get(row));
  HistoryRange::Point point;
  if (old.has_value()) point = ReadPoint(*old).value_or(HistoryRange::Point());
  point.counts += counts;
  if (gauges != nullptr) point.gauges = *gauges;
  v1::HistoryPoint message;
  ToWire(point.counts, *message.mutable_counts());
  if (point.gauges.has_value()) Write(*point.gauges, *message.mutable_gauges());
  changes.puts.emplace_back(row, message.SerializeAsString());
  return absl::OkStatus();
}

void History::Forget(absl::Time now, HistoryRows::Changes& changes) {
  for (const Resolution& resolution : options_.resolutions) {
    const int64_t step = absl::ToInt64Seconds(resolution.step);
    const int64_t oldest = FloorTo(absl::ToUnixSeconds(now - resolution.keep), step);
    changes.erase.emplace_back(PointRow(step, 0), PointRow(step, oldest));
  }
  for (const auto& [node, baseline] : baselines_) {
    if (now - baseline.seen > Longest()) changes.deletes.push_back(BaselineRow(node));
  }
}

absl::StatusOr<CountsBySpace> History::Record(std::span<const NodeReading> readings, const CacheGauges& gauges) {
  MutexLock lock(mu_);
  const absl::Time now = clock_.Now();
  const double to = absl::ToDoubleSeconds(now - absl::UnixEpoch());
  HistoryRows::Changes changes;
  std::map<int64_t, Pending> pending;  // by the second it began in
  std::map<std::string, Baseline> read;
  CountsBySpace recorded;
  std::set<SpaceId> spaces = spaces_;
  for (const NodeReading& reading : readings) {
    const auto known = baselines_.find(reading.node);
    const bool goes_on = known != baselines_.end() && known->second.since == reading.since;
    const absl::Time before = goes_on ? known->second.taken : reading.since;
    // The node's clock may differ from ours, but runs as fast.
    const absl::Duration took = std::clamp(reading.taken - before, absl::ZeroDuration(), Longest());
    const double from = to - absl::ToDoubleSeconds(took);
    Pending& part = pending.try_emplace(static_cast<int64_t>(std::floor(from)), Pending{.from = from}).first->second;
    for (const auto& [space, counts] : reading.counts) {
      CacheCounts lately = counts;
      if (goes_on) {
        if (const auto old = known->second.counts.find(space); old != known->second.counts.end()) lately -= old->second;
      }
      if (lately.IsZero()) continue;
      const SpaceId kept = KeptAs(space, spaces);
      spaces.insert(kept);
      part.counts[kept] += lately;
      recorded[kept] += lately;
    }
    read[reading.node] = {.since = reading.since, .taken = reading.taken, .seen = now, .counts = reading.counts};
  }

  // By row; the cluster's own of this moment has the gauges.
  std::map<std::string, CacheCounts> rows;
  std::set<std::string> present;
  for (const Resolution& resolution : options_.resolutions) {
    const int64_t step = absl::ToInt64Seconds(resolution.step);
    const double oldest = absl::ToDoubleSeconds(now - resolution.keep - absl::UnixEpoch());
    for (const auto& [second, part] : pending) {
      int64_t begin = FloorTo(static_cast<int64_t>(std::floor(std::max(part.from, oldest))), step);
      for (; static_cast<double>(begin) <= to; begin += step) {
        const double share = Overlap(part.from, to, static_cast<double>(begin), static_cast<double>(begin + step));
        if (share <= 0) continue;
        for (const auto& [space, counts] : part.counts) {
          rows[PointRow(step, begin) + kClusterSeries] += counts * share;
          rows[PointRow(step, begin) + SeriesOf(space)] += counts * share;
        }
      }
    }
    const std::string newest = PointRow(step, FloorTo(absl::ToUnixSeconds(now), step)) + kClusterSeries;
    rows.try_emplace(newest);
    present.insert(newest);
  }
  for (const auto& [row, counts] : rows) {
    KDN_RETURN_IF_ERROR(AddTo(row, counts, present.contains(row) ? &gauges : nullptr, changes));
  }
  for (const auto& [node, baseline] : read) {
    v1::NodeBaseline message;
    message.set_since_unix_ms(absl::ToUnixMillis(baseline.since));
    message.set_taken_unix_ms(absl::ToUnixMillis(baseline.taken));
    message.set_seen_unix_ms(absl::ToUnixMillis(baseline.seen));
    for (const auto& [space, counts] : baseline.counts) {
      v1::NodeBaseline::Space& out = *message.add_spaces();
      if (!space.IsZero()) out.set_space_id(std::string(AsStringView(space.span())));
      ToWire(counts, *out.mutable_counts());
    }
    changes.puts.emplace_back(BaselineRow(node), message.SerializeAsString());
  }
  const bool forget = now - forgot_ >= kForgetEvery || now < forgot_;
  if (forget) Forget(now, changes);
  KDN_RETURN_IF_ERROR(rows_->Write(changes));

  for (auto& [node, baseline] : read) baselines_[node] = std::move(baseline);
  spaces_ = std::move(spaces);
  if (forget) {
    forgot_ = now;
    std::erase_if(baselines_, [now](const auto& entry) { return now - entry.second.seen > Longest(); });
    KDN_RETURN_IF_ERROR(LoadSpaces());
  }
  return recorded;
}

absl::StatusOr<HistoryRange> History::Read(const Question& question) {
  if (question.range < absl::Seconds(1) || question.range > Longest()) {
    return InvalidArgument("range: {} s is out of range; give 1 to {}", absl::ToInt64Seconds(question.range),
                           absl::ToInt64Seconds(Longest()));
  }
  if (question.max_points < 1 || question.max_points > kMostPoints) {
    return InvalidArgument("points: {} is out of range; give 1 to {}", question.max_points, kMostPoints);
  }
  std::string series(1, kClusterSeries);
  if (question.space.has_value()) {
    MutexLock lock(mu_);
    if (!spaces_.contains(*question.space)) {
      return NotFound("space: {} has no history of its own; ask for the list of those that have",
                      question.space->ToShortHex());
    }
    series = SeriesOf(*question.space);
  }
  const auto fits = [&](const Resolution& resolution) { return resolution.keep >= question.range; };
  const auto found = std::ranges::find_if(options_.resolutions, fits);
  const Resolution& resolution = found == options_.resolutions.end() ? options_.resolutions.back() : *found;
  const int64_t row_step = absl::ToInt64Seconds(resolution.step);
  const int64_t range = absl::ToInt64Seconds(question.range);
  const auto most = static_cast<int64_t>(question.max_points);
  const int64_t rows_a_point = std::max<int64_t>(1, ((range + row_step - 1) / row_step + most - 1) / most);
  const int64_t step = row_step * rows_a_point;

  HistoryRange out = {.now = clock_.Now(), .step = absl::Seconds(step), .points = {}, .total = {}};
  const int64_t last = FloorTo(absl::ToUnixSeconds(out.now), step);
  const int64_t first = std::max<int64_t>(0, last - (std::max<int64_t>(1, (range + step - 1) / step) - 1) * step);
  const auto add = [&](std::string_view row, std::string_view value) {
    if (row.size() < kSeriesAt || row.substr(kSeriesAt) != series) return;
    std::optional<HistoryRange::Point> point = ReadPoint(value);
    if (!point.has_value()) return;
    const absl::Time begin = absl::FromUnixSeconds(FloorTo(static_cast<int64_t>(NumberAt(row, kBeginAt, 8)), step));
    out.total += point->counts;
    if (out.points.empty() || out.points.back().begin != begin) {
      point->begin = begin;
      out.points.push_back(*point);
      return;
    }
    HistoryRange::Point& into = out.points.back();
    into.counts += point->counts;
    if (point->gauges.has_value()) into.gauges = point->gauges;
  };
  KDN_RETURN_IF_ERROR(rows_->Visit(PointRow(row_step, first), PointRow(row_step, last + step), add));
  return out;
}

std::vector<SpaceId> History::Spaces() const {
  MutexLock lock(mu_);
  return {spaces_.begin(), spaces_.end()};
}

}  // namespace kdn
