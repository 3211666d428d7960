#include "integration/link/link_shaper.h"

#include <algorithm>

#include "absl/time/time.h"

namespace kdn {
namespace {

constexpr size_t kMaxSliceSegments = (16 << 10) / kSegmentBytes;
constexpr uint64_t kBitsPerByte = 8;
constexpr uint64_t kNanosPerSecond = 1'000'000'000;
// Linux's TCP: duplicate acknowledgements that start a fast retransmission, and its shortest and longest timeout.
constexpr size_t kDuplicateAcks = 3;
constexpr LinkDuration kMinTimeout = std::chrono::milliseconds(200);
constexpr LinkDuration kMaxTimeout = std::chrono::seconds(120);

size_t SliceBytes(uint64_t bits_per_second) {
  if (bits_per_second == 0) return kMaxSliceSegments * kSegmentBytes;
  const size_t segments_a_millisecond = bits_per_second / (kBitsPerByte * 1000 * kSegmentBytes);
  return std::clamp(segments_a_millisecond, size_t{1}, kMaxSliceSegments) * kSegmentBytes;
}

}  // namespace

LinkShaper::LinkShaper(LinkWay way, const LinkOptions& options) : way_(way) { SetOptions(options); }

void LinkShaper::SetOptions(const LinkOptions& options) {
  bits_per_second_ = options.BitsPerSecond(way_);
  latency_ = absl::ToChronoNanoseconds(options.latency);
  jitter_ = absl::ToChronoNanoseconds(options.jitter);
  loss_ = options.loss;
  slice_bytes_ = SliceBytes(bits_per_second_);
  random_.seed(2 * options.seed + (way_ == LinkWay::kUp ? 0 : 1));
  remainder_ = 0;
}

void LinkShaper::HoldUntil(LinkTime time) { free_at_ = std::max(free_at_, time); }

LinkTime LinkShaper::Send(size_t bytes, size_t bytes_behind, LinkTime ready) {
  free_at_ = std::max(free_at_, ready) + TransmissionTime(bytes);
  return free_at_ + latency_ + Jitter() + LossDelay(bytes, bytes_behind);
}

LinkDuration LinkShaper::TransmissionTime(size_t bytes) {
  if (bits_per_second_ == 0) return {};
  const uint64_t bit_nanos = bytes * kBitsPerByte * kNanosPerSecond + remainder_;
  remainder_ = bit_nanos % bits_per_second_;
  return LinkDuration(bit_nanos / bits_per_second_);
}

LinkDuration LinkShaper::Jitter() {
  if (jitter_ == LinkDuration()) return {};
  return LinkDuration(std::uniform_int_distribution<int64_t>(0, jitter_.count())(random_));
}

LinkDuration LinkShaper::LossDelay(size_t bytes, size_t bytes_behind) {
  if (loss_ == 0) return {};
  std::bernoulli_distribution lost(loss_);
  const LinkDuration round_trip = 2 * latency_;
  LinkDuration longest{};
  for (size_t begin = 0; begin < bytes; begin += kSegmentBytes) {
    if (!lost(random_)) continue;
    const size_t end = std::min(begin + kSegmentBytes, bytes);
    bool fast = bytes - end + bytes_behind >= kDuplicateAcks * kSegmentBytes;
    LinkDuration timeout = round_trip + kMinTimeout;
    LinkDuration delay{};
    do {
      if (fast) {
        delay += round_trip;
        fast = false;
      } else {
        delay += timeout;
        timeout = std::min(2 * timeout, kMaxTimeout);
      }
    } while (lost(random_));  // the retransmission as well
    longest = std::max(longest, delay);
  }
  return longest;
}

}  // namespace kdn
