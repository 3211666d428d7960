// UseReport: what an engine says of a space: what people call it, how fast it computes, and what came of blending.
//
//   UseReport report = {.space = id, .description = DescriptionOf(space, "acme"), .prefilled_tokens = 8192,
//                       .prefill_seconds = 4.1};
//   KDN_RETURN_IF_ERROR(CheckUseReport(report));
//   recorder.Reported(report);
//
// Engines send it by kdn-client/usage/usage_reporter.h.
//
// Thread-safety: values; pure functions.
#ifndef KDN_STORAGE_ANALYTICS_USE_REPORT_H_
#define KDN_STORAGE_ANALYTICS_USE_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/analytics/blend_counts.h"
#include "storage/format/digest.h"
#include "storage/format/kv_space.h"

namespace kdn {

inline constexpr size_t kMostDescriptionBytes = 128;  // of each text

// What people call a space. Texts are printable ASCII; empty where nobody has said.
struct SpaceDescription {
  std::string model = {};
  std::string weights_revision = {};
  std::string adapter = {};
  std::string tenant = {};  // a name; never KvSpace::tenant_salt, which is a secret
  std::string dtype = {};   // as DTypeName has it
  uint32_t chunk_tokens = 0;
  absl::Time told = absl::InfinitePast();  // when a node heard it

  bool empty() const;
  // Takes over what `other` says.
  void Update(const SpaceDescription& other);
  friend bool operator==(const SpaceDescription&, const SpaceDescription&) = default;
};

// Of `space`, all but its salt. `tenant`: a name for people. Texts are made to fit: by AsDescription.
SpaceDescription DescriptionOf(const KvSpace& space, std::string_view tenant);
// The first bytes of `text`, with '?' for each that is not printable ASCII.
std::string AsDescription(std::string_view text);

struct UseReport {
  SpaceId space = {};
  SpaceDescription description = {};
  // Since the last report.
  double prefilled_tokens = 0;
  double prefill_seconds = 0;
  BlendCounts blend = {};

  bool HasCounts() const { return prefilled_tokens > 0 || prefill_seconds > 0 || !blend.IsZero(); }
};

// INVALID_ARGUMENT naming the field: no space, a text that is too long or not printable, an amount that is not finite,
// is negative or is more than any engine does between two reports, tokens that took no time.
absl::Status CheckUseReport(const UseReport& report);

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_USE_REPORT_H_
