// Frequencies against numbers worked out elsewhere, and rotated keys against keys that were computed where they went.
#include "kdn-client/blend/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "tests/kdn-client/float_reference.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

constexpr DType kFloats[] = {DType::kBf16, DType::kF16, DType::kF32};
constexpr RopeKind kKinds[] = {RopeKind::kHalfSplit, RopeKind::kInterleaved};

RopeSpec Plain(RopeKind kind, uint32_t rotary_dim, double theta = 10000) {
  return {.kind = kind, .rotary_dim = rotary_dim, .theta = theta};
}

RopeSpec Yarn() {
  return {.kind = RopeKind::kHalfSplit,
          .scaling = RopeScaling::kYarn,
          .rotary_dim = 64,
          .theta = 10000,
          .factor = 16,
          .low_freq_factor = 1,
          .high_freq_factor = 32,
          .attention_factor = 1,
          .original_max_position = 4096};
}

// --- Frequencies ----------------------------------------------------------------------------------------------------

struct Golden {
  std::string name;
  RopeSpec rope;
  std::vector<std::pair<size_t, double>> frequencies;  // index, radians
};

std::vector<Golden> Goldens() {
  RopeSpec linear = Plain(RopeKind::kHalfSplit, 128);
  linear.scaling = RopeScaling::kLinear;
  linear.factor = 4;
  RopeSpec ntk = linear;
  ntk.scaling = RopeScaling::kNtk;
  ntk.factor = 8;
  RopeSpec wide_yarn = Yarn();
  wide_yarn.rotary_dim = 128;
  wide_yarn.theta = 1e6;
  wide_yarn.factor = 4;
  wide_yarn.original_max_position = 32768;
  RopeSpec llama3 = Plain(RopeKind::kHalfSplit, 128, 500000);
  llama3.scaling = RopeScaling::kLlama3;
  llama3.factor = 8;
  llama3.low_freq_factor = 1;
  llama3.high_freq_factor = 4;
  llama3.original_max_position = 8192;
  return {
      {"none",
       Plain(RopeKind::kHalfSplit, 128),
       {{0, 1.0}, {1, 0.8659643233600653}, {31, 0.011547819846894581}, {63, 0.00011547819846894582}}},
      {"partial", Plain(RopeKind::kInterleaved, 32), {{1, 0.5623413251903491}, {15, 0.0001778279410038923}}},
      {"tiny", Plain(RopeKind::kInterleaved, 6), {{0, 1.0}, {1, 0.046415888336127795}, {2, 0.0021544346900318847}}},
      {"linear",
       linear,
       {{0, 0.25}, {1, 0.21649108084001634}, {31, 0.0028869549617236453}, {63, 2.8869549617236455e-05}}},
      {"ntk", ntk, {{0, 1.0}, {1, 0.8378480019188024}, {31, 0.004150709961890679}, {63, 1.4434774808618228e-05}}},
      {"yarn",
       Yarn(),
       {{0, 1.0},
        {5, 0.23713737056616552},
        {9, 0.07498942093324558},
        {10, 0.056234132519034905},
        {11, 0.039128569789286714},
        {16, 0.005673076923076923},
        {20, 0.0008817889629315672},
        {21, 0.0004902359103050537},
        {22, 0.00023938376673600874},
        {31, 8.334508951020775e-06}}},
      {"wide yarn",
       wide_yarn,
       {{22, 0.008659643233600654},
        {23, 0.006978305848598663},
        {24, 0.005375321490790102},
        {30, 0.0010643609812470017},
        {39, 6.490394320837029e-05},
        {40, 4.4456985250973074e-05},
        {63, 3.102344401879299e-07}}},
      {"llama3",
       llama3,
       {{0, 1.0},
        {1, 0.8146172338565447},
        {27, 0.003942276030116656},
        {28, 0.003211445994752591},
        {29, 0.002166570763503359},
        {30, 0.0013718935677611381},
        {33, 0.00031269375038406506},
        {34, 0.0001785078127679964},
        {35, 9.556212353964682e-05},
        {63, 3.068925988914511e-07}}},
  };
}

TEST(RopeFrequenciesTest, EveryScalingIsThatOfItsPaper) {
  for (const Golden& golden : Goldens()) {
    const auto frequencies = RopeFrequencies(golden.rope);
    ASSERT_TRUE(frequencies.ok()) << golden.name << ": " << frequencies.status();
    ASSERT_EQ(frequencies->size(), golden.rope.rotary_dim / 2) << golden.name;
    for (const auto& [i, expected] : golden.frequencies) {
      EXPECT_NEAR((*frequencies)[i], expected, 1e-13 * expected) << golden.name << " " << i;
    }
  }
}

TEST(RopeFrequenciesTest, LayersWithoutRopeHaveNone) {
  const auto frequencies = RopeFrequencies({});
  ASSERT_TRUE(frequencies.ok()) << frequencies.status();
  EXPECT_TRUE(frequencies->empty());
}

TEST(RopeFrequenciesTest, NtkOfTwoDimsHasTheOneFrequencyThatNoBaseChanges) {
  RopeSpec rope = Plain(RopeKind::kHalfSplit, 2);
  rope.scaling = RopeScaling::kNtk;
  rope.factor = 8;
  EXPECT_EQ(RopeFrequencies(rope).value(), std::vector<double>{1.0});
}

TEST(RopeFrequenciesTest, ErrorsNameTheField) {
  struct Case {
    std::string field;
    std::function<void(RopeSpec&)> spoil;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Case> cases = {
      {"kind", [](RopeSpec& r) { r.kind = static_cast<RopeKind>(9); }},
      {"scaling", [](RopeSpec& r) { r.scaling = static_cast<RopeScaling>(9); }},
      {"rotary_dim", [](RopeSpec& r) { r.rotary_dim = 0; }},
      {"rotary_dim", [](RopeSpec& r) { r.rotary_dim = 63; }},
      {"rotary_dim", [](RopeSpec& r) { r.rotary_dim = 0xFFFFFFFE; }},
      {"theta", [](RopeSpec& r) { r.theta = 0; }},
      {"theta", [=](RopeSpec& r) { r.theta = nan; }},
      {"theta", [](RopeSpec& r) { r.theta = 1; }},
      {"factor", [](RopeSpec& r) { r.factor = 0; }},
      {"factor", [=](RopeSpec& r) { r.factor = nan; }},
      {"factor", [](RopeSpec& r) { r.factor = 1e-300; }},
      {"low_freq_factor", [](RopeSpec& r) { r.low_freq_factor = 0; }},
      {"high_freq_factor", [](RopeSpec& r) { r.high_freq_factor = 1; }},
      {"attention_factor", [](RopeSpec& r) { r.attention_factor = -1; }},
      {"original_max_position", [](RopeSpec& r) { r.original_max_position = 0; }},
  };
  ASSERT_TRUE(RopeFrequencies(Yarn()).ok());
  for (const Case& c : cases) {
    RopeSpec rope = Yarn();
    c.spoil(rope);
    for (const absl::Status& status : {RopeFrequencies(rope).status(), KeyRotation::By(1, rope, 64).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
      EXPECT_THAT(MessageOf(status), HasSubstr(c.field));
    }
  }
  RopeSpec tiny_theta = Plain(RopeKind::kHalfSplit, 64, 5e-324);
  EXPECT_THAT(MessageOf(RopeFrequencies(tiny_theta).status()), HasSubstr("theta"));
  EXPECT_THAT(MessageOf(KeyRotation::By(1, Yarn(), 62).status()), HasSubstr("rotary_dim"));
  for (const int64_t far :
       {int64_t{1} << 33, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    EXPECT_THAT(MessageOf(KeyRotation::By(far, Yarn(), 64).status()), HasSubstr("positions"));
  }
}

TEST(RopeFrequenciesTest, MagnitudeIsYarnsAttentionFactor) {
  RopeSpec rope = Yarn();
  EXPECT_EQ(RopeMagnitude(rope), 1.0);
  rope.attention_factor = 1.5;
  EXPECT_EQ(RopeMagnitude(rope), 1.5);
  rope.attention_factor = 0;
  EXPECT_DOUBLE_EQ(RopeMagnitude(rope), 1.2772588722239782);
  EXPECT_TRUE(RopeFrequencies(rope).ok());
  rope.factor = 0.5;
  EXPECT_EQ(RopeMagnitude(rope), 1.0);
  EXPECT_EQ(RopeMagnitude(Plain(RopeKind::kHalfSplit, 64)), 1.0);
}

// --- Rotation -------------------------------------------------------------------------------------------------------

// Half a unit in the last place of 1.
double Roundoff(DType dtype) { return dtype == DType::kBf16 ? 0x1p-8 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-24; }

void PutValue(DType dtype, double value, uint8_t* element) {
  if (dtype == DType::kF32) {
    const auto word = static_cast<float>(value);
    std::memcpy(element, &word, sizeof word);
  } else {
    const uint16_t word = HalfTypeOf(dtype).Nearest(value);
    std::memcpy(element, &word, sizeof word);
  }
}

// Dims of pair `i`.
std::pair<size_t, size_t> PairAt(const RopeSpec& rope, size_t i) {
  if (rope.kind == RopeKind::kInterleaved) return {2 * i, 2 * i + 1};
  return {i, i + rope.rotary_dim / 2};
}

// A head rotated to `position` from raw values.
std::vector<double> RotatedTo(int64_t position, const RopeSpec& rope, std::vector<double> head) {
  const std::vector<double> frequencies = RopeFrequencies(rope).value();
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto [a, b] = PairAt(rope, i);
    const long double angle = static_cast<long double>(position) * frequencies[i];
    const auto cos = static_cast<double>(std::cos(angle)), sin = static_cast<double>(std::sin(angle));
    const double x = head[a], y = head[b];
    head[a] = x * cos - y * sin;
    head[b] = y * cos + x * sin;
  }
  return head;
}

Bytes InDtype(DType dtype, const std::vector<double>& values) {
  Bytes bytes(values.size() * DTypeSize(dtype));
  for (size_t i = 0; i < values.size(); ++i) PutValue(dtype, values[i], &bytes[i * DTypeSize(dtype)]);
  return bytes;
}

// Values of a head that is in `dtype`.
std::vector<double> Values(DType dtype, const Bytes& head) {
  std::vector<double> values;
  for (size_t at = 0; at < head.size(); at += DTypeSize(dtype)) values.push_back(ValueAt(dtype, &head[at]));
  return values;
}

KeyRows OneHead(DType dtype, size_t k_dim) {
  return {.rows = 1, .row_bytes = k_dim * DTypeSize(dtype), .heads = 1, .head_bytes = k_dim * DTypeSize(dtype)};
}

// How far a key of this pair may be off after `roundings` into `dtype`.
double Tolerance(DType dtype, int roundings, double x, double y) {
  const double half_step_of_denormals = dtype == DType::kF16 ? 0x1p-25 : 0;
  return roundings * (Roundoff(dtype) * 1.01 * std::hypot(x, y) + 1.5 * half_step_of_denormals) +
         6 * 0x1p-24 * std::hypot(x, y);
}

// The cosines and sines in use: what becomes of keys that are (1, 0) in every pair.
void TablesOf(const KeyRotation& rotation, const RopeSpec& rope, std::vector<float>& cos, std::vector<float>& sin) {
  std::vector<double> head(rope.rotary_dim, 0.0);
  for (size_t i = 0; i < head.size() / 2; ++i) head[PairAt(rope, i).first] = 1;
  Bytes keys = InDtype(DType::kF32, head);
  rotation.Rotate(DType::kF32, keys.data(), OneHead(DType::kF32, head.size()));
  const std::vector<double> rotated = Values(DType::kF32, keys);
  cos.clear();
  sin.clear();
  for (size_t i = 0; i < head.size() / 2; ++i) {
    cos.push_back(static_cast<float>(rotated[PairAt(rope, i).first]));
    sin.push_back(static_cast<float>(rotated[PairAt(rope, i).second]));
  }
}

// One element at a time; volatile, so that no compiler fuses products and sums.
void ReferenceRotate(const KeyRotation& rotation, const RopeSpec& rope, DType dtype, uint8_t* keys,
                     const KeyRows& shape) {
  std::vector<float> cos, sin;
  TablesOf(rotation, rope, cos, sin);
  const size_t size = DTypeSize(dtype);
  for (size_t row = 0; row < shape.rows; ++row) {
    for (size_t head = 0; head < shape.heads; ++head) {
      uint8_t* const at = keys + row * shape.row_bytes + head * shape.head_bytes;
      for (size_t i = 0; i < cos.size(); ++i) {
        const auto [a, b] = PairAt(rope, i);
        const auto x = static_cast<float>(ValueAt(dtype, at + a * size));
        const auto y = static_cast<float>(ValueAt(dtype, at + b * size));
        const volatile float xc = x * cos[i], ys = y * sin[i], yc = y * cos[i], xs = x * sin[i];
        const volatile float moved_x = xc - ys, moved_y = yc + xs;
        PutValue(dtype, moved_x, at + a * size);
        PutValue(dtype, moved_y, at + b * size);
      }
    }
  }
}

// Values of many sizes, denormals too, whatever the type; no NaNs or infinities.
Bytes Noise(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes noise(bytes);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random() % 0x77 | (random() & 0x80));
  return noise;
}

TEST(KeyRotationTest, OnlyFloatsAreRotated) {
  for (const DType dtype : kFloats) EXPECT_TRUE(KeyRotation::CanRotate(dtype));
  for (const DType dtype : {DType::kI8, DType::kF8E4M3, DType::kF8E5M2}) EXPECT_FALSE(KeyRotation::CanRotate(dtype));
}

TEST(KeyRotationTest, CosinesAndSinesAreRightAtAnyDistance) {
  const RopeSpec rope = Plain(RopeKind::kHalfSplit, 128);
  const std::vector<double> frequencies = RopeFrequencies(rope).value();
  constexpr int64_t kFar = int64_t{1} << 31;
  for (const int64_t move : {int64_t{1}, int64_t{-1}, int64_t{4095}, int64_t{-131071}, kFar - 1, kFar, -kFar, 2 * kFar,
                             -2 * kFar + 1, int64_t{1999999973}}) {
    std::vector<float> cos, sin;
    TablesOf(KeyRotation::By(move, rope, 128).value(), rope, cos, sin);
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const long double angle = static_cast<long double>(move) * frequencies[i];
      EXPECT_NEAR(cos[i], static_cast<double>(std::cos(angle)), 0x1.01p-25) << move << " positions, pair " << i;
      EXPECT_NEAR(sin[i], static_cast<double>(std::sin(angle)), 0x1.01p-25) << move << " positions, pair " << i;
    }
  }
}

TEST(KeyRotationTest, ACachedKeyBecomesTheOneComputedWhereItGoes) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::vector<RopeSpec> ropes;
  for (const Golden& golden : Goldens()) ropes.push_back(golden.rope);
  for (const uint32_t rotary_dim : {2U, 10U, 24U, 34U, 66U, 80U, 192U}) {
    ropes.push_back(Plain(RopeKind::kHalfSplit, rotary_dim, 500000));
  }
  for (RopeSpec rope : ropes) {
    for (const DType dtype : kFloats) {
      for (const RopeKind kind : kKinds) {
        rope.kind = kind;
        for (const int64_t move : {1, -1, 256, -4096, 131072, 2147483647, -2147483647}) {
          const auto position = static_cast<int64_t>(random() % 131072);
          const uint32_t k_dim = rope.rotary_dim + static_cast<uint32_t>(random() % 3) * 7;
          std::vector<double> raw(k_dim);
          for (double& x : raw) x = normal(random);
          Bytes keys = InDtype(dtype, RotatedTo(position, rope, raw));
          KeyRotation::By(move, rope, k_dim).value().Rotate(dtype, keys.data(), OneHead(dtype, k_dim));
          const std::vector<double> rotated = Values(dtype, keys);
          const std::vector<double> computed = RotatedTo(position + move, rope, raw);
          for (size_t i = 0; i < rope.rotary_dim / 2; ++i) {
            const auto [a, b] = PairAt(rope, i);
            const double tolerance = Tolerance(dtype, 2, raw[a], raw[b]);
            ASSERT_NEAR(rotated[a], computed[a], tolerance) << DTypeName(dtype) << " by " << move << ", dim " << a;
            ASSERT_NEAR(rotated[b], computed[b], tolerance) << DTypeName(dtype) << " by " << move << ", dim " << b;
          }
        }
      }
    }
  }
}

TEST(KeyRotationTest, BackAndForthIsWithinTwoRoundings) {
  std::mt19937 random(2);
  std::normal_distribution<double> normal;
  for (const DType dtype : kFloats) {
    for (const RopeKind kind : kKinds) {
      const RopeSpec rope = Plain(kind, 128);
      std::vector<double> raw(128);
      for (double& x : raw) x = normal(random);
      const Bytes cached = InDtype(dtype, raw);
      Bytes keys = cached;
      KeyRotation::By(1234, rope, 128).value().Rotate(dtype, keys.data(), OneHead(dtype, 128));
      EXPECT_NE(keys, cached);
      KeyRotation::By(-1234, rope, 128).value().Rotate(dtype, keys.data(), OneHead(dtype, 128));
      const std::vector<double> before = Values(dtype, cached), after = Values(dtype, keys);
      for (size_t i = 0; i < 64; ++i) {
        const auto [a, b] = PairAt(rope, i);
        EXPECT_NEAR(after[a], before[a], Tolerance(dtype, 2, before[a], before[b])) << DTypeName(dtype) << " " << a;
        EXPECT_NEAR(after[b], before[b], Tolerance(dtype, 2, before[a], before[b])) << DTypeName(dtype) << " " << b;
      }
    }
  }
}

TEST(KeyRotationTest, NoMoveAndNoRopeChangeNoBit) {
  std::mt19937 random(3);
  Bytes noise(4 * 64 * 4);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());  // NaNs, too
  for (const KeyRotation& rotation : {KeyRotation::By(0, Plain(RopeKind::kHalfSplit, 64), 64).value(),
                                      KeyRotation::By(0, Yarn(), 64).value(), KeyRotation::By(777, {}, 64).value()}) {
    EXPECT_TRUE(rotation.IsIdentity());
    for (const DType dtype : kFloats) {
      Bytes keys = noise;
      rotation.Rotate(dtype, keys.data(), {.rows = 2, .row_bytes = 512, .heads = 2, .head_bytes = 256});
      EXPECT_EQ(keys, noise);
    }
  }
  EXPECT_FALSE(KeyRotation::By(1, Plain(RopeKind::kHalfSplit, 64), 64).value().IsIdentity());
}

TEST(KeyRotationTest, AnyShapeAtAnyAddressAndNothingBesideIt) {
  for (const DType dtype : kFloats) {
    const size_t size = DTypeSize(dtype);
    for (const RopeKind kind : kKinds) {
      for (const uint32_t rotary_dim : {2U, 4U, 6U, 8U, 14U, 30U, 32U, 34U, 38U, 42U, 62U, 64U, 96U, 128U}) {
        for (const uint32_t beyond : {0U, 1U, 16U}) {
          const RopeSpec rope = Plain(kind, rotary_dim);
          const uint32_t k_dim = rotary_dim + beyond;
          const KeyRotation rotation = KeyRotation::By(-321, rope, k_dim).value();
          const size_t head = k_dim * size;
          const KeyRows shapes[] = {
              {.rows = 3, .row_bytes = 2 * head, .heads = 2, .head_bytes = head},
              {.rows = 3, .row_bytes = 2 * (head + 5) + 3, .heads = 2, .head_bytes = head + 5},
              {.rows = 3, .row_bytes = head + 1, .heads = 2, .head_bytes = 3 * (head + 1) + 2},
              {.rows = 0, .row_bytes = head, .heads = 2, .head_bytes = head},
              {.rows = 2, .row_bytes = head, .heads = 0, .head_bytes = head},
          };
          for (const KeyRows& shape : shapes) {
            for (const size_t shift : {size_t{0}, size_t{1}, size_t{3}}) {
              Bytes keys = Noise(shift + 6 * (head + 6) + 6, rotary_dim);
              Bytes expected = keys;
              rotation.Rotate(dtype, &keys[shift], shape);
              ReferenceRotate(rotation, rope, dtype, &expected[shift], shape);
              ASSERT_EQ(keys, expected) << DTypeName(dtype) << ", kind " << static_cast<int>(kind) << ", " << rotary_dim
                                        << " of " << k_dim << " dims, at " << shift;
            }
          }
        }
      }
    }
  }
}

TEST(KeyRotationTest, ResultsDoNotDependOnHowRowsAreSharedOut) {
  for (const DType dtype : kFloats) {
    for (const RopeKind kind : kKinds) {
      const KeyRotation rotation = KeyRotation::By(99, Plain(kind, 64), 80).value();
      const size_t head = 80 * DTypeSize(dtype);
      const KeyRows all = {.rows = 7, .row_bytes = 3 * head, .heads = 3, .head_bytes = head};
      const Bytes cached = Noise(7 * 3 * head, 4);
      Bytes together = cached, rows = cached, heads = cached;
      rotation.Rotate(dtype, together.data(), all);
      for (size_t row = 0; row < 7; ++row) {
        KeyRows one = all;
        one.rows = 1;
        rotation.Rotate(dtype, &rows[row * all.row_bytes], one);
      }
      for (size_t h = 0; h < 3; ++h) {
        KeyRows one = all;
        one.heads = 1;
        rotation.Rotate(dtype, &heads[h * head], one);
      }
      EXPECT_NE(together, cached);
      EXPECT_EQ(rows, together) << DTypeName(dtype);
      EXPECT_EQ(heads, together) << DTypeName(dtype);
    }
  }
}

TEST(KeyRotationTest, NansAndInfinitiesStayInTheirPair) {
  for (const DType dtype : kFloats) {
    for (const RopeKind kind : kKinds) {
      const RopeSpec rope = Plain(kind, 96);
      const KeyRotation rotation = KeyRotation::By(5, rope, 96).value();
      for (const double special : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        for (size_t pair = 0; pair < 48; pair += 5) {
          std::vector<double> values(96, 0.5);
          const auto [a, b] = PairAt(rope, pair);
          Bytes clean = InDtype(dtype, values), keys = clean;
          const auto word = static_cast<float>(special);
          const auto half = static_cast<uint16_t>(std::isnan(special)     ? 0x7FC1
                                                  : dtype == DType::kBf16 ? 0x7F80
                                                                          : 0x7C00);
          std::memcpy(&keys[a * DTypeSize(dtype)],
                      dtype == DType::kF32 ? static_cast<const void*>(&word) : static_cast<const void*>(&half),
                      DTypeSize(dtype));
          rotation.Rotate(dtype, keys.data(), OneHead(dtype, 96));
          rotation.Rotate(dtype, clean.data(), OneHead(dtype, 96));
          const std::vector<double> rotated = Values(dtype, keys), expected = Values(dtype, clean);
          for (size_t i = 0; i < 96; ++i) {
            if (i != a && i != b) {
              EXPECT_EQ(rotated[i], expected[i]) << DTypeName(dtype) << " pair " << pair << ", dim " << i;
            } else if (std::isnan(special)) {
              EXPECT_TRUE(std::isnan(rotated[i])) << DTypeName(dtype) << " dim " << i << " is " << rotated[i];
            } else {
              EXPECT_FALSE(std::isfinite(rotated[i])) << DTypeName(dtype) << " dim " << i << " is " << rotated[i];
            }
          }
        }
      }
    }
  }
}

// What one machine moved and what another one moved is the same key.
class RopeTargetsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  static void Use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override { Use(0); }
};

TEST_P(RopeTargetsTest, EveryInstructionSetMovesKeysAlike) {
  for (const DType dtype : kFloats) {
    for (const RopeKind kind : kKinds) {
      for (const uint32_t rotary_dim : {24U, 54U, 128U}) {
        const RopeSpec rope = Plain(kind, rotary_dim);
        const KeyRotation rotation = KeyRotation::By(1000, rope, rotary_dim).value();
        const size_t head = rotary_dim * DTypeSize(dtype);
        const KeyRows shape = {.rows = 50, .row_bytes = 2 * head, .heads = 2, .head_bytes = head};
        Bytes keys = Noise(100 * head, 7);
        Bytes expected = keys;
        Use(GetParam());
        rotation.Rotate(dtype, keys.data(), shape);
        ReferenceRotate(rotation, rope, dtype, expected.data(), shape);
        EXPECT_EQ(keys, expected) << DTypeName(dtype) << " " << rotary_dim;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, RopeTargetsTest, ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace kdn
