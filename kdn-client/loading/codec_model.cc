#include "kdn-client/loading/codec_model.h"

#include <algorithm>

namespace kdn {
namespace {

struct Constants {
  std::string_view name;
  Fidelity fidelity;
  double ratio;              // encoded bytes for each raw one
  double decode_per_second;  // raw bytes, on one core
  double recode_per_second;  // raw bytes, on one core; 0: nothing is done
};

// Measured on one core by `./dev bench codec` (bench/results/codec.json, the slowest of its models, rounded down;
// zstd's ratio is that of 16-bit floats with the most noise and real KV's in the middle). Recoding to raw is decoding
// zstd. What is stored is taken for raw, at no cost to the node.
constexpr std::array<Constants, kCodecWishCount> kConstants = {{{"", Fidelity::kExact, 1.0, 13e9, 0},
                                                                {"raw", Fidelity::kExact, 1.0, 13e9, 2e9},
                                                                {"zstd", Fidelity::kExact, 0.8, 2e9, 1.4e9},
                                                                {"q8", Fidelity::kQuantised, 0.46, 5e9, 0.9e9},
                                                                {"cachegen", Fidelity::kQuantised, 0.25, 1.8e9, 0.3e9},
                                                                {"q4", Fidelity::kQuantised, 0.27, 5e9, 0.8e9}}};
// What receiving takes beside decoding: the kernel's copy, the checksum, our own copy. Encoded bytes per second, by
// gRPC over loopback (bench/results/fetch.json), rounded down.
constexpr double kReceivePerSecond = 2e9;
// The constants weigh as much as a fetch of so many bytes; the ratio's less, as it does not vary with the moment.
constexpr double kConstantBytes = 2.0 * (1 << 20);
constexpr double kConstantRatioBytes = 128.0 * (1 << 10);
// What was seen fades by half over so many raw bytes, as a link's rate does.
constexpr double kHalfLifeBytes = 64.0 * (1 << 20);
constexpr double kLeastKept = 0.5;
// And by this much with each request: to a twentieth over a hundred.
constexpr double kFadePerRequest = 0.97;
// Recoding is not held to be slower than measured by more than this.
constexpr double kSlowestRecoding = 30;

constexpr std::array<CodecWish, 3> kExact = {CodecWish::kStored, CodecWish::kRaw, CodecWish::kZstd};
constexpr std::array<CodecWish, 3> kLossy = {CodecWish::kQ8, CodecWish::kCacheGen, CodecWish::kQ4};

const Constants& ConstantsOf(CodecWish wish) { return kConstants[static_cast<size_t>(wish)]; }

double ConstantRecodeSeconds(CodecWish wish) {
  const double rate = ConstantsOf(wish).recode_per_second;
  return rate == 0 ? 0 : 1 / rate;
}

}  // namespace

std::span<const CodecWish> ExactWishes() { return kExact; }
std::span<const CodecWish> LossyWishes() { return kLossy; }
std::string_view CodecNameOf(CodecWish wish) { return ConstantsOf(wish).name; }
Fidelity FidelityOf(CodecWish wish) { return ConstantsOf(wish).fidelity; }

void CodecModel::Mean::Add(double value, double by_bytes) {
  const double keep = std::max(kLeastKept, 1 - by_bytes / kHalfLifeBytes / 2);
  sum = keep * sum + value * by_bytes;
  bytes = keep * bytes + by_bytes;
}

double CodecModel::Mean::Beside(double constant, double constant_bytes) const {
  return (sum + constant * constant_bytes) / (bytes + constant_bytes);
}

void CodecModel::Observe(CodecWish wish, uint64_t raw_bytes, uint64_t encoded_bytes, absl::Duration work) {
  if (raw_bytes == 0 || encoded_bytes == 0) return;
  const auto raw = static_cast<double>(raw_bytes);
  Learned& learned = learned_[static_cast<size_t>(wish)];
  learned.ratio.Add(static_cast<double>(encoded_bytes) / raw, raw);
  learned.receive.Add(std::max(0.0, absl::ToDoubleSeconds(work)) / raw, raw);
}

void CodecModel::ObserveRecoding(CodecWish wish, uint64_t raw_bytes, absl::Duration elapsed) {
  if (wish == CodecWish::kStored || raw_bytes == 0) return;
  const auto raw = static_cast<double>(raw_bytes);
  learned_[static_cast<size_t>(wish)].recode.Add(std::max(0.0, absl::ToDoubleSeconds(elapsed)) / raw, raw);
}

void CodecModel::Fade() {
  for (Learned& learned : learned_) {
    for (Mean* mean : {&learned.ratio, &learned.receive, &learned.recode}) {
      mean->sum *= kFadePerRequest;
      mean->bytes *= kFadePerRequest;
    }
  }
}

double CodecModel::Ratio(CodecWish wish) const {
  return learned_[static_cast<size_t>(wish)].ratio.Beside(ConstantsOf(wish).ratio, kConstantRatioBytes);
}

double CodecModel::ReceiveSeconds(CodecWish wish) const {
  const Constants& constants = ConstantsOf(wish);
  return learned_[static_cast<size_t>(wish)].receive.Beside(
      constants.ratio / kReceivePerSecond + 1 / constants.decode_per_second, kConstantBytes);
}

double CodecModel::RecodeSeconds(CodecWish wish) const {
  return learned_[static_cast<size_t>(wish)].recode.Beside(ConstantRecodeSeconds(wish), kConstantBytes);
}

double CodecModel::SecondsPerByte(CodecWish wish, double wire_bytes_per_second) const {
  return std::max({Ratio(wish) / wire_bytes_per_second, ReceiveSeconds(wish), RecodeSeconds(wish)});
}

bool CodecModel::RecodingMayHaveTaken(CodecWish wish, uint64_t raw_bytes, absl::Duration moving) {
  const double slowest = kSlowestRecoding * ConstantRecodeSeconds(wish) * static_cast<double>(raw_bytes);
  return slowest >= absl::ToDoubleSeconds(moving);
}

}  // namespace kdn
