#include "bench/blend/blend_speed.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "bench/line_chart.h"
#include "bench/node_process.h"
#include "integration/engine/blend_prompt.h"
#include "integration/engine/space.h"
#include "integration/process/child_process.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

using engine::SegmentedPrompt;

constexpr absl::Duration kDeadline = absl::Seconds(60);

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }
double Median(const std::vector<double>& samples) { return Quantile(samples, 0.5); }

class SpeedBench {
 public:
  SpeedBench(const BlendSpeedOptions& options, std::shared_ptr<const engine::Model> model)
      : options_(options), model_(std::move(model)) {
    std::mt19937 random(1);
    const auto draw = [&](uint32_t tokens) {
      std::vector<Token> drawn(tokens);
      for (Token& token : drawn) token = static_cast<Token>(random() % model_->config().vocab_size);
      return drawn;
    };
    for (uint32_t i = 0; i < options.segments; ++i) prompt_.segments.push_back(draw(options.segment_tokens));
    prompt_.question = draw(options.question_tokens);
    tokens_ = static_cast<uint32_t>(prompt_.Tokens().size());
  }

  absl::Status Run(Report& report) {
    KDN_RETURN_IF_ERROR(Start("memory", /*on_disk=*/false));
    KDN_RETURN_IF_ERROR(Start("disk", /*on_disk=*/true));
    KDN_RETURN_IF_ERROR(FullPrefill().status());  // warms up
    for (uint32_t round = 0; round < options_.rounds; ++round) KDN_RETURN_IF_ERROR(Round());
    Summarise(report);
    KDN_RETURN_IF_ERROR(Overlap(report));
    if (options_.queue > 0) KDN_RETURN_IF_ERROR(Queue(report));
    return Plot();
  }

 private:
  struct Cell {
    std::vector<double> seconds;
    std::vector<double> shares;  // of a full prefill in the same round
    uint64_t bytes = 0;
    uint64_t rows = 0;
  };
  struct Tier {
    std::string name;
    std::optional<NodeProcess> node;
    std::unique_ptr<Client> client;
    std::vector<Cell> cells;  // by ratio
  };

  engine::SessionOptions SessionOptions() const {
    return {.kv_dtype = DType::kBf16, .capacity = tokens_, .threads = 2};
  }
  absl::StatusOr<std::unique_ptr<engine::Session>> NewSession() const {
    return engine::Session::Create(model_, SessionOptions());
  }
  BlendSchedule ScheduleAt(double ratio) const { return {.checks = {{.layer = options_.check_layer, .ratio = ratio}}}; }

  absl::Status Start(const std::string& name, bool on_disk) {
    Tier tier = {.name = name, .node = {}, .client = {}, .cells = std::vector<Cell>(options_.ratios.size())};
    // With hardly any memory, what is stored lies on the disk.
    const NodeStorage storage = on_disk ? NodeStorage{.memory_bytes = "1MiB", .disk_path = directory_.path() / "disk"}
                                        : NodeStorage{.disk_path = {}};
    KDN_ASSIGN_OR_RETURN(NodeProcess node, NodeProcess::Start(options_.node, {}, storage));
    tier.node.emplace(std::move(node));
    KDN_ASSIGN_OR_RETURN(tier.client, Client::Create(engine::SpaceOf(*model_, SessionOptions()),
                                                     MakeRemoteTransport(tier.node->endpoint().ToString())));
    for (const std::vector<Token>& segment : prompt_.segments) {
      KDN_ASSIGN_OR_RETURN(
          const StoreReport stored,
          engine::StoreSegment(
              model_, SessionOptions(), *tier.client, segment,
              {.deadline = kDeadline, .ack = on_disk ? Ack::kDurable : Ack::kMemory, .codec = options_.codec}));
      if (stored.Stored() != stored.chunks.size())
        return Internal("{} of {} chunks stored", stored.Stored(), stored.chunks.size());
    }
    tiers_.push_back(std::move(tier));
    return absl::OkStatus();
  }

  absl::StatusOr<double> FullPrefill() const {
    KDN_ASSIGN_OR_RETURN(const auto session, NewSession());
    const std::vector<Token> tokens = prompt_.Tokens();
    const absl::Time begin = RealNow();
    KDN_RETURN_IF_ERROR(session->Append(tokens));
    return Seconds(RealNow() - begin);
  }

  // From having the tokens: lookup, fetch, moving keys, selection and computing, to the logits.
  absl::StatusOr<engine::BlendRun> BlendOnce(Client& client, const SegmentedPrompt& prompt, double ratio) const {
    KDN_ASSIGN_OR_RETURN(const auto session, NewSession());
    KDN_ASSIGN_OR_RETURN(engine::BlendRun run,
                         engine::RunBySchedule(*session, client, prompt, ScheduleAt(ratio), kDeadline));
    if (run.loaded.used != run.loaded.chunks) {
      return Internal("{} of {} chunks came", run.loaded.used, run.loaded.chunks);
    }
    return run;
  }

  absl::Status Round() {
    KDN_ASSIGN_OR_RETURN(const double before, FullPrefill());
    std::vector<std::pair<Cell*, double>> samples;
    for (Tier& tier : tiers_) {
      for (size_t i = 0; i < options_.ratios.size(); ++i) {
        KDN_ASSIGN_OR_RETURN(const engine::BlendRun blended, BlendOnce(*tier.client, prompt_, options_.ratios[i]));
        tier.cells[i].bytes = blended.loaded.encoded_bytes;
        tier.cells[i].rows = blended.blend.computed_rows;
        samples.emplace_back(&tier.cells[i], Seconds(blended.time_to_first_token));
      }
    }
    KDN_ASSIGN_OR_RETURN(const double after, FullPrefill());
    full_.push_back((before + after) / 2);
    for (const auto& [cell, seconds] : samples) {
      cell->seconds.push_back(seconds);
      cell->shares.push_back(full_.back() / seconds);
    }
    return absl::OkStatus();
  }

  void Summarise(Report& report) const {
    report.AddRow(
        {{"tier", "none"}, {"ratio", "full prefill"}, {"first token, ms", 1e3 * Median(full_)}, {"x faster", 1.0}});
    for (const Tier& tier : tiers_) {
      for (size_t i = 0; i < options_.ratios.size(); ++i) {
        const Cell& cell = tier.cells[i];
        report.AddRow({{"tier", tier.name},
                       {"ratio", options_.ratios[i]},
                       {"first token, ms", 1e3 * Median(cell.seconds)},
                       {"x faster", Median(cell.shares)},
                       {"MB fetched", static_cast<double>(cell.bytes) / 1e6},
                       {"rows x layers computed", cell.rows}});
        if (options_.ratios[i] != options_.goal_ratio) continue;
        report.AddGoal({.name = fmt::format("first token, full prefill ÷ blended at {:.0f} %, {} tier",
                                            100 * options_.goal_ratio, tier.name),
                        .value = Median(cell.shares),
                        .unit = "x",
                        .goal = 3.3,
                        .better = Better::kHigher});
      }
    }
  }

  // What of loading was hidden behind computing: the engine's waits are what was not.
  absl::Status Overlap(Report& report) const {
    for (const Tier& tier : tiers_) {
      std::vector<double> overlaps;
      std::vector<double> loads;
      std::vector<double> waits;
      for (uint32_t round = 0; round < options_.rounds; ++round) {
        KDN_ASSIGN_OR_RETURN(const engine::BlendRun blended, BlendOnce(*tier.client, prompt_, options_.goal_ratio));
        const double waited = Seconds(blended.blend.waited);
        loads.push_back(Seconds(blended.loaded.load));
        waits.push_back(waited);
        overlaps.push_back((loads.back() - waited) /
                           std::min(loads.back(), Seconds(blended.time_to_first_token) - waited));
      }
      report.AddRow({{"tier", tier.name},
                     {"load, ms", 1e3 * Median(loads)},
                     {"engine waited, ms", 1e3 * Median(waits)},
                     {"overlap", Median(overlaps)}});
      report.AddGoal({.name = "overlap ÷ the shorter of load and compute, " + tier.name + " tier",
                      .value = Median(overlaps),
                      .unit = "x",
                      .goal = 0.8,
                      .better = Better::kHigher});
    }
    return absl::OkStatus();
  }

  // Prompts one behind another, each with the segments in another order.
  absl::Status Queue(Report& report) const {
    std::vector<SegmentedPrompt> prompts;
    for (uint32_t i = 0; i < options_.queue; ++i) {
      prompts.push_back(prompt_);
      std::rotate(prompts.back().segments.begin(), prompts.back().segments.begin() + i % options_.segments,
                  prompts.back().segments.end());
    }
    double full = 0;
    double blended = 0;
    for (const SegmentedPrompt& prompt : prompts) {
      KDN_ASSIGN_OR_RETURN(const double one, FullPrefill());
      full += one;
      KDN_ASSIGN_OR_RETURN(const engine::BlendRun other,
                           BlendOnce(*tiers_.front().client, prompt, options_.goal_ratio));
      blended += Seconds(other.time_to_first_token);
    }
    report.AddRow({{"queue", options_.queue},
                   {"full prefill, prompts/s", options_.queue / full},
                   {"blended, prompts/s", options_.queue / blended}});
    report.AddGoal({.name = "throughput of a queue, blended ÷ full prefill",
                    .value = full / blended,
                    .unit = "x",
                    .goal = 2.8,
                    .better = Better::kHigher});
    return absl::OkStatus();
  }

  absl::Status Plot() const {
    LineChart chart("Time to first token over the ratio computed anew", "tokens computed anew, %", "first token, ms");
    std::vector<double> percent;
    for (const double ratio : options_.ratios) percent.push_back(100 * ratio);
    std::vector<std::vector<double>> lines;
    for (const Tier& tier : tiers_) {
      chart.AddSeries("blended, " + tier.name + " tier", tier.name == "memory" ? "#1f77b4" : "#ff7f0e", false, true);
      lines.emplace_back();
      for (const Cell& cell : tier.cells) lines.back().push_back(1e3 * Median(cell.seconds));
    }
    chart.AddSeries("full prefill", "#888888", /*dashed=*/true);
    lines.emplace_back(percent.size(), 1e3 * Median(full_));
    chart.AddPanel(fmt::format("{} segments of {} tokens", options_.segments, options_.segment_tokens), percent, lines);
    return chart.Write(ResultsDirectory() + "/blend.svg");
  }

  const BlendSpeedOptions& options_;
  const std::shared_ptr<const engine::Model> model_;
  SegmentedPrompt prompt_;
  uint32_t tokens_ = 0;
  TemporaryDirectory directory_{"kdn-bench-blend-"};
  std::vector<Tier> tiers_;
  std::vector<double> full_;  // by round
};

}  // namespace

absl::Status MeasureBlendSpeed(const BlendSpeedOptions& options, Report& report) {
  KDN_ASSIGN_OR_RETURN(const engine::RandomModelSpec spec, engine::ParseRandomModel(options.model));
  KDN_ASSIGN_OR_RETURN(std::shared_ptr<const engine::Model> model, engine::Model::Random(spec));
  return SpeedBench(options, std::move(model)).Run(report);
}

}  // namespace kdn::bench
