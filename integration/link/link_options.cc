#include "integration/link/link_options.h"

#include <string>

#include "storage/base/status.h"

namespace kdn {
namespace {

absl::Status ValidateBandwidth(const char* name, uint64_t bits_per_second) {
  if (bits_per_second == 0) return absl::OkStatus();
  if (bits_per_second < 10'000'000 || bits_per_second > 100'000'000'000) {
    return InvalidArgument("{} bandwidth: {} bit/s is out of range; give 10 Mbit/s to 100 Gbit/s, or 0 for unlimited",
                           name, bits_per_second);
  }
  return absl::OkStatus();
}

absl::Status ValidateDelay(const char* name, absl::Duration delay) {
  if (delay >= absl::ZeroDuration() && delay <= absl::Seconds(10)) return absl::OkStatus();
  return InvalidArgument("{}: {} is out of range; give 0 to 10s", name, std::string(absl::FormatDuration(delay)));
}

absl::Status ValidateBuffer(const char* name, size_t bytes) {
  if (bytes >= size_t{64} << 10 && bytes <= size_t{1} << 30) return absl::OkStatus();
  return InvalidArgument("{}: {} bytes are out of range; give 64 KiB to 1 GiB", name, bytes);
}

}  // namespace

absl::Status ValidateLinkOptions(const LinkOptions& options) {
  KDN_RETURN_IF_ERROR(ValidateBandwidth("up", options.up_bits_per_second));
  KDN_RETURN_IF_ERROR(ValidateBandwidth("down", options.down_bits_per_second));
  KDN_RETURN_IF_ERROR(ValidateDelay("latency", options.latency));
  KDN_RETURN_IF_ERROR(ValidateDelay("jitter", options.jitter));
  if (!(options.loss >= 0 && options.loss <= 0.5)) {
    return InvalidArgument("loss: {} is out of range; give 0 to 0.5", options.loss);
  }
  KDN_RETURN_IF_ERROR(ValidateBuffer("queue", options.queue_bytes));
  return ValidateBuffer("window", options.window_bytes);
}

}  // namespace kdn
