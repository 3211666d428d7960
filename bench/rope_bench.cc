// Keys moved to another position, on one core: gigabytes of keys a second, each byte counted once, by element type,
// pairing and layout. The keys lie in slabs of 256 tokens x 8 heads x 128 dims, together larger than the caches.
//
//   ./dev bench rope [--mib N] [--seconds S]
//
// Two peers take turns with it in every round: memcpy of the same bytes, which is what memory allows, and a plain loop
// over elements, as a reference engine's scalar code rotates. Time is the thread's processor time; medians count.

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/report.h"
#include "kdn-client/blend/rope.h"
#include "kdn-client/element_copy.h"
#include "kdn-client/processor_time.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

struct Options {
  uint32_t mib = 64;
  double seconds = 1.0;
};

constexpr size_t kTokens = 256, kHeads = 8;
constexpr uint32_t kDim = 128;
constexpr int64_t kMove = 1000;

// --- The scalar peer ------------------------------------------------------------------------------------------------

template <typename Word>
Word WordAt(const uint8_t* element) {
  Word word;
  std::memcpy(&word, element, sizeof word);
  return word;
}

struct ScalarBf16 {
  static constexpr size_t kSize = 2;
  static float Load(const uint8_t* at) { return std::bit_cast<float>(uint32_t{WordAt<uint16_t>(at)} << 16); }
  static void Store(float x, uint8_t* at) {
    const auto bits = std::bit_cast<uint32_t>(x);
    const auto word = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    std::memcpy(at, &word, sizeof word);
  }
};

struct ScalarF16 {
  static constexpr size_t kSize = 2;
  static constexpr uint32_t kRebias = uint32_t{127 - 15} << 23;
  static float Load(const uint8_t* at) {
    const uint32_t word = WordAt<uint16_t>(at);
    const uint32_t magnitude = word & 0x7FFF;
    const float x = magnitude < 0x400 ? static_cast<float>(magnitude) * 0x1p-24F
                                      : std::bit_cast<float>((magnitude << 13) + kRebias);
    return (word & 0x8000) != 0 ? -x : x;
  }
  static void Store(float x, uint8_t* at) {
    const auto bits = std::bit_cast<uint32_t>(x);
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    const uint32_t rounded = magnitude < kRebias + (1U << 23)
                                 ? std::bit_cast<uint32_t>(std::fabs(x) + 0.5F) - std::bit_cast<uint32_t>(0.5F)
                                 : (magnitude - kRebias + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    const auto word = static_cast<uint16_t>(std::min(rounded, 0x7C00U) | (bits >> 16 & 0x8000));
    std::memcpy(at, &word, sizeof word);
  }
};

struct ScalarF32 {
  static constexpr size_t kSize = 4;
  static float Load(const uint8_t* at) { return WordAt<float>(at); }
  static void Store(float x, uint8_t* at) { std::memcpy(at, &x, sizeof x); }
};

struct Tables {
  std::vector<float> cos, sin;
};

template <typename Element>
void RotateScalars(const Tables& tables, RopeKind kind, uint8_t* keys, const KeyRows& shape) {
  const size_t pairs = tables.cos.size();
  const size_t step = kind == RopeKind::kInterleaved ? 2 : 1;
  const size_t apart = kind == RopeKind::kInterleaved ? 1 : pairs;
  for (size_t row = 0; row < shape.rows; ++row) {
    for (size_t head = 0; head < shape.heads; ++head) {
      uint8_t* const at = keys + row * shape.row_bytes + head * shape.head_bytes;
      for (size_t i = 0; i < pairs; ++i) {
        uint8_t* const first = at + step * i * Element::kSize;
        uint8_t* const second = first + apart * Element::kSize;
        const float x = Element::Load(first), y = Element::Load(second);
        Element::Store(x * tables.cos[i] - y * tables.sin[i], first);
        Element::Store(y * tables.cos[i] + x * tables.sin[i], second);
      }
    }
  }
}

void RotateScalars(DType dtype, const Tables& tables, RopeKind kind, uint8_t* keys, const KeyRows& shape) {
  if (dtype == DType::kBf16) return RotateScalars<ScalarBf16>(tables, kind, keys, shape);
  if (dtype == DType::kF16) return RotateScalars<ScalarF16>(tables, kind, keys, shape);
  RotateScalars<ScalarF32>(tables, kind, keys, shape);
}

// --- Measuring ------------------------------------------------------------------------------------------------------

struct Layout {
  std::string name;
  KeyRows shape;
};

std::vector<Layout> Layouts(DType dtype) {
  const size_t head = kDim * DTypeSize(dtype);
  return {
      {"NHD", {.rows = kTokens, .row_bytes = kHeads * head, .heads = kHeads, .head_bytes = head}},
      {"HND", {.rows = kTokens, .row_bytes = head, .heads = kHeads, .head_bytes = kTokens * head}},
  };
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), keys_(size_t{options.mib} << 20), copy_(keys_.size()) {}

  // Gigabytes a second of the rotation.
  absl::StatusOr<double> Measure(DType dtype, RopeKind kind, const Layout& layout, Report& report) {
    const RopeSpec rope = {.kind = kind, .rotary_dim = kDim, .theta = 500000};
    KDN_ASSIGN_OR_RETURN(const KeyRotation rotation, KeyRotation::By(kMove, rope, kDim));
    KDN_ASSIGN_OR_RETURN(const Tables tables, TablesOf(rope));
    Fill(dtype);
    const size_t slab = kTokens * kHeads * kDim * DTypeSize(dtype);
    const auto each_slab = [&](const auto& rotate) {
      for (size_t at = 0; at + slab <= keys_.size(); at += slab) rotate(&keys_[at]);
    };
    std::vector<double> rotated, copied, scalar;
    const absl::Duration enough = ThreadProcessorTime() + absl::Seconds(options_.seconds);
    while (rotated.size() < 3 || ThreadProcessorTime() < enough) {
      rotated.push_back(Rate([&] { each_slab([&](uint8_t* keys) { rotation.Rotate(dtype, keys, layout.shape); }); }));
      copied.push_back(Rate([&] { std::memcpy(copy_.data(), keys_.data(), keys_.size()); }));
      scalar.push_back(
          Rate([&] { each_slab([&](uint8_t* keys) { RotateScalars(dtype, tables, kind, keys, layout.shape); }); }));
    }
    const double rate = Quantile(rotated, 0.5);
    report.AddRow({{"dtype", DTypeName(dtype)},
                   {"pairs", KindName(kind)},
                   {"layout", layout.name},
                   {"rotate_gbps", rate},
                   {"memcpy_gbps", Quantile(copied, 0.5)},
                   {"scalar_gbps", Quantile(scalar, 0.5)}});
    return rate;
  }

  static std::string KindName(RopeKind kind) { return kind == RopeKind::kInterleaved ? "interleaved" : "half-split"; }

 private:
  static absl::StatusOr<Tables> TablesOf(const RopeSpec& rope) {
    KDN_ASSIGN_OR_RETURN(const std::vector<double> frequencies, RopeFrequencies(rope));
    Tables tables;
    for (const double f : frequencies) {
      tables.cos.push_back(static_cast<float>(std::cos(kMove * f)));
      tables.sin.push_back(static_cast<float>(std::sin(kMove * f)));
    }
    return tables;
  }

  // Normal values: a thousand-odd of them, over and over.
  void Fill(DType dtype) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(1024);
    for (float& x : values) x = normal(random);
    const size_t bytes = values.size() * DTypeSize(dtype);
    for (size_t at = 0; at < keys_.size(); at += bytes) {
      CopyElements(DType::kF32, reinterpret_cast<const uint8_t*>(values.data()), dtype, &keys_[at],
                   values.size() * sizeof(float));
    }
  }

  double Rate(const std::function<void()>& run) const {
    const absl::Duration begin = ThreadProcessorTime();
    run();
    return static_cast<double>(keys_.size()) / absl::ToDoubleSeconds(ThreadProcessorTime() - begin) / 1e9;
  }

  const Options options_;
  std::vector<uint8_t> keys_, copy_;
};

absl::Status Run(const Options& options, Report& report) {
  Bench bench(options);
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    for (const RopeKind kind : {RopeKind::kHalfSplit, RopeKind::kInterleaved}) {
      double slowest = std::numeric_limits<double>::infinity();
      for (const Layout& layout : Layouts(dtype)) {
        KDN_ASSIGN_OR_RETURN(const double rate, bench.Measure(dtype, kind, layout, report));
        slowest = std::min(slowest, rate);
      }
      report.AddGoal({.name = fmt::format("keys rotated, {}, {}", DTypeName(dtype), Bench::KindName(kind)),
                      .value = slowest,
                      .unit = "GB/s",
                      .goal = 5});
    }
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Keys moved to another position, on one core.");
  app.add_option("--mib", options.mib, "keys that are gone through by turns")->check(CLI::Range(2, 4096));
  app.add_option("--seconds", options.seconds, "processor time of each row")->check(CLI::Range(0.0, 3600.0));
  CLI11_PARSE(app, argc, argv);
  Report report("rope");
  report.SetFact("mib", options.mib);
  if (const absl::Status status = Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench rope: {}\n", MessageOf(status));
    return 1;
  }
  return report.Finish();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) { return kdn::bench::Main(argc, argv); }
