#include "storage/analytics/use_report.h"

#include <algorithm>
#include <cmath>

#include "storage/base/status.h"

namespace kdn {
namespace {

// Ten million tokens a second for a day, and the processes of a day on a hundred machines.
constexpr double kMostAmount = 1e12;
constexpr double kMostSeconds = 1e7;
constexpr double kMostTokensPerSecond = 1e8;

bool IsPrintable(char c) { return c >= 0x20 && c < 0x7f; }

absl::Status CheckText(const std::string& text, const char* field) {
  if (text.size() > kMostDescriptionBytes) {
    return InvalidArgument("{}: {} bytes; shorten it to {}", field, text.size(), kMostDescriptionBytes);
  }
  if (const auto bad = std::ranges::find_if_not(text, IsPrintable); bad != text.end()) {
    return InvalidArgument("{}: byte {} is 0x{:02x}; give printable ASCII", field, bad - text.begin(),
                           static_cast<uint8_t>(*bad));
  }
  return absl::OkStatus();
}

absl::Status CheckAmount(double value, double most, std::string_view field) {
  if (std::isfinite(value) && value >= 0 && value <= most) return absl::OkStatus();
  return InvalidArgument("{}: {} is no amount of one report; give 0 to {}", field, value, most);
}

absl::Status CheckDescription(const SpaceDescription& description) {
  KDN_RETURN_IF_ERROR(CheckText(description.model, "model"));
  KDN_RETURN_IF_ERROR(CheckText(description.weights_revision, "weights_revision"));
  KDN_RETURN_IF_ERROR(CheckText(description.adapter, "adapter"));
  KDN_RETURN_IF_ERROR(CheckText(description.tenant, "tenant"));
  KDN_RETURN_IF_ERROR(CheckText(description.dtype, "dtype"));
  if (description.chunk_tokens > kMaxChunkTokens) {
    return InvalidArgument("chunk_tokens: {} is out of range; give 0 to {}", description.chunk_tokens, kMaxChunkTokens);
  }
  return absl::OkStatus();
}

}  // namespace

bool SpaceDescription::empty() const {
  return model.empty() && weights_revision.empty() && adapter.empty() && tenant.empty() && dtype.empty() &&
         chunk_tokens == 0;
}

void SpaceDescription::Update(const SpaceDescription& other) {
  for (std::string SpaceDescription::*const text :
       {&SpaceDescription::model, &SpaceDescription::weights_revision, &SpaceDescription::adapter,
        &SpaceDescription::tenant, &SpaceDescription::dtype}) {
    if (!(other.*text).empty()) this->*text = other.*text;
  }
  if (other.chunk_tokens != 0) chunk_tokens = other.chunk_tokens;
  told = std::max(told, other.told);
}

std::string AsDescription(std::string_view text) {
  std::string fitting(text.substr(0, kMostDescriptionBytes));
  std::ranges::replace_if(
      fitting, [](char c) { return !IsPrintable(c); }, '?');
  return fitting;
}

SpaceDescription DescriptionOf(const KvSpace& space, std::string_view tenant) {
  return {.model = AsDescription(space.model_id),
          .weights_revision = AsDescription(space.weights_revision),
          .adapter = AsDescription(space.adapter_id),
          .tenant = AsDescription(tenant),
          .dtype = std::string(DTypeName(space.dtype)),
          .chunk_tokens = space.chunk_tokens};
}

absl::Status CheckUseReport(const UseReport& report) {
  if (report.space.IsZero()) return InvalidArgument("space_id: it names none; give the space's 32 bytes");
  KDN_RETURN_IF_ERROR(CheckDescription(report.description));
  KDN_RETURN_IF_ERROR(CheckAmount(report.prefilled_tokens, kMostAmount, "prefilled_tokens"));
  KDN_RETURN_IF_ERROR(CheckAmount(report.prefill_seconds, kMostSeconds, "prefill_seconds"));
  if (report.prefilled_tokens > kMostTokensPerSecond * report.prefill_seconds) {
    return InvalidArgument("prefill_seconds: {} for {} tokens is more than {} tokens a second; give what they took",
                           report.prefill_seconds, report.prefilled_tokens, kMostTokensPerSecond);
  }
  for (const BlendField& field : kBlendFields) {
    KDN_RETURN_IF_ERROR(Annotate(CheckAmount(report.blend.*field.value, kMostAmount, field.name), "blend"));
  }
  for (size_t i = 0; i < kBlendRefusalCount; ++i) {
    KDN_RETURN_IF_ERROR(
        Annotate(CheckAmount(report.blend.refused[i], kMostAmount, BlendRefusalName(static_cast<BlendRefusal>(i))),
                 "blend: refused"));
  }
  return absl::OkStatus();
}

}  // namespace kdn
