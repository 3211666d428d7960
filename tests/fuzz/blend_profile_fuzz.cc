// Fuzz target: blend profiles and schedules from files. Whatever is taken is valid, and survives being written.
#include <string_view>

#include "kdn-client/blend/blend_profile.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto profile = kdn::DecodeBlendProfile(text); profile.ok()) {
    kdn::Require(kdn::ValidateBlendProfile(*profile).ok(), "a profile that was read is valid");
    const auto encoded = kdn::EncodeBlendProfile(*profile);
    kdn::Require(encoded.ok(), "a profile that was read can be written");
    const auto again = kdn::DecodeBlendProfile(*encoded);
    kdn::Require(again.ok() && *again == *profile, "a profile survives being written");
  }
  if (const auto schedule = kdn::ParseSchedule(text); schedule.ok()) {
    const auto again = kdn::ParseSchedule(kdn::FormatSchedule(*schedule));
    kdn::Require(again.ok() && *again == *schedule, "a schedule survives being written");
  }
  return 0;
}
