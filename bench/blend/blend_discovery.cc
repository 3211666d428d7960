#include "bench/blend/blend_discovery.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

class Discovery {
 public:
  explicit Discovery(const BlendDiscoveryOptions& options) : options_(options) {}

  absl::Status Run(Report& report) {
    KDN_ASSIGN_OR_RETURN(finder_, SegmentFinder::Create(options_.finder));
    for (uint32_t i = 0; i < options_.segments; ++i) segments_.push_back(Draw(options_.segment_tokens));
    const absl::Time begin = RealNow();
    for (const std::vector<Token>& segment : segments_) finder_->Add(segment);
    const absl::Duration adding = RealNow() - begin;
    const SegmentFinderCounts counts = finder_->counts();
    report.AddRow({{"discovery", "index"},
                   {"segments", counts.segments},
                   {"bytes a token", static_cast<double>(counts.bytes) / static_cast<double>(counts.tokens)},
                   {"Mtokens/s", static_cast<double>(counts.tokens) / 1e6 / absl::ToDoubleSeconds(adding)}});
    for (const uint32_t tokens : options_.piece_tokens) Measure(tokens, report);
    return absl::OkStatus();
  }

 private:
  std::vector<Token> Draw(uint32_t count) {
    std::vector<Token> tokens(count);
    for (Token& token : tokens) token = static_cast<Token>(random_() % options_.vocabulary);
    return tokens;
  }

  // Pieces from anywhere in segments, with tokens between them that nobody stored.
  void Measure(uint32_t piece_tokens, Report& report) {
    std::vector<Token> prompt;
    for (uint32_t i = 0; i < options_.pieces; ++i) {
      const std::vector<Token> between = Draw(options_.between_tokens);
      prompt.insert(prompt.end(), between.begin(), between.end());
      const std::vector<Token>& segment = segments_[random_() % segments_.size()];
      const auto begin = segment.begin() + static_cast<ptrdiff_t>(random_() % (segment.size() - piece_tokens + 1));
      prompt.insert(prompt.end(), begin, begin + static_cast<ptrdiff_t>(piece_tokens));
    }
    const absl::Time begin = RealNow();
    const std::vector<FoundRun> runs = finder_->Find(prompt);
    const absl::Duration searching = RealNow() - begin;

    const double known = static_cast<double>(options_.pieces) * piece_tokens;
    uint64_t found = 0;
    for (const FoundRun& run : runs) found += run.tokens;
    nlohmann::json row = {{"discovery", "pieces"},
                          {"tokens of a piece", piece_tokens},
                          {"found", static_cast<double>(found) / known},
                          {"Mtokens/s", static_cast<double>(prompt.size()) / 1e6 / absl::ToDoubleSeconds(searching)}};
    for (const uint32_t chunk_tokens : options_.chunk_tokens) {
      uint64_t usable = 0;
      for (const FoundRun& run : runs) {
        const std::optional<FoundRun> cut = CutToChunks(run, chunk_tokens);
        if (cut.has_value()) usable += cut->tokens;
      }
      row[fmt::format("in whole chunks of {}", chunk_tokens)] = static_cast<double>(usable) / known;
    }
    report.AddRow(std::move(row));
  }

  const BlendDiscoveryOptions& options_;
  std::mt19937_64 random_{1};
  std::unique_ptr<SegmentFinder> finder_;
  std::vector<std::vector<Token>> segments_;
};

}  // namespace

absl::Status MeasureBlendDiscovery(const BlendDiscoveryOptions& options, Report& report) {
  return Discovery(options).Run(report);
}

}  // namespace kdn::bench
