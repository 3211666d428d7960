#include "integration/engine/engine_report.h"

#include <map>

#include "integration/engine/tokenizer.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

std::string TierOf(const std::vector<TierKind>& tiers) {
  if (tiers.empty()) return "none";
  for (const TierKind tier : tiers) {
    if (tier != tiers.front()) return "mixed";
  }
  return std::string(TierKindName(tiers.front()));
}

std::map<std::string, int> CountMisses(const std::vector<Miss>& misses) {
  std::map<std::string, int> counts;
  for (const Miss& miss : misses) ++counts[std::string(MissReasonName(miss.reason))];
  return counts;
}

}  // namespace

nlohmann::json ToJson(const EngineReport& report) {
  const PromptReport& p = report.prompt;
  const auto ms = [](absl::Duration d) { return absl::ToDoubleMilliseconds(d); };
  std::vector<std::string> details;
  for (const Miss& miss : p.misses) details.push_back(miss.detail);
  std::vector<std::string> failures;
  for (const absl::Status& status : p.store_failures) failures.push_back(status.ToString());
  return {{"prompt_tokens", p.prompt_tokens},
          {"reused_tokens", p.reused_tokens},
          {"computed_tokens", p.computed_tokens},
          {"ttft_ms", ms(p.time_to_first_token)},
          {"lookup_ms", ms(p.lookup)},
          {"fetch_ms", ms(p.fetch)},
          {"prefill_ms", ms(p.prefill)},
          {"store_ms", ms(p.store)},
          {"decode_ms", ms(report.decode)},
          {"load_ms", ms(report.load)},
          {"chunks_found", p.chunks_found},
          {"chunks_fetched", p.chunks_fetched},
          {"chunks_stored", p.chunks_stored},
          {"tier", TierOf(p.tiers)},
          {"miss_reasons", CountMisses(p.misses)},
          {"miss_details", details},
          {"store_failures", failures},
          {"encoded_bytes_fetched", p.encoded_bytes_fetched},
          {"raw_bytes_fetched", p.raw_bytes_fetched},
          {"encoded_bytes_stored", p.encoded_bytes_stored},
          {"raw_bytes_stored", p.raw_bytes_stored},
          {"why", p.why},
          {"generated", report.generated},
          {"first_logits_sha256", report.first_logits_sha256},
          {"all_logits_sha256", report.all_logits_sha256}};
}

std::string ToText(const EngineReport& report) {
  const PromptReport& p = report.prompt;
  const auto ms = [](absl::Duration d) { return absl::ToDoubleMilliseconds(d); };
  std::string text = fmt::format(
      "prompt      {} tokens: {} reused, {} computed\n"
      "first token {:.1f} ms (lookup {:.1f}, fetch {:.1f}, prefill {:.1f}); the model was loaded before, in {:.0f} "
      "ms\n",
      p.prompt_tokens, p.reused_tokens, p.computed_tokens, ms(p.time_to_first_token), ms(p.lookup), ms(p.fetch),
      ms(p.prefill), ms(report.load));
  if (p.chunks_fetched != 0) {
    text += fmt::format("fetched     {} chunks from {}, {} bytes for {}\n", p.tiers.size(), TierOf(p.tiers),
                        p.encoded_bytes_fetched, p.raw_bytes_fetched);
  }
  if (p.chunks_stored + p.store_failures.size() != 0) {
    text += fmt::format("stored      {} chunks in {:.1f} ms, {} bytes for {}\n", p.chunks_stored, ms(p.store),
                        p.encoded_bytes_stored, p.raw_bytes_stored);
  }
  for (const Miss& miss : p.misses)
    text += fmt::format("missed      {}: {}\n", MissReasonName(miss.reason), miss.detail);
  for (const absl::Status& status : p.store_failures) text += fmt::format("not stored  {}\n", MessageOf(status));
  text += fmt::format("logits      {}\n", report.all_logits_sha256);
  text += fmt::format("generated   {}\n", nlohmann::json(report.generated).dump());
  return text;
}

}  // namespace kdn::engine
