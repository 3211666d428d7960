#include "storage/format/plane_split.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <random>
#include <vector>

namespace kdn {
namespace {

struct Planes {
  std::vector<uint8_t> high, low;
  friend bool operator==(const Planes&, const Planes&) = default;
};

// The definition, in the plainest words.
Planes Reference(const std::vector<uint8_t>& words) {
  Planes planes;
  for (size_t i = 0; i < words.size(); i += 2) {
    const unsigned word = words[i] + 256u * words[i + 1];
    const unsigned rotated = word << 1 | word >> 15;
    planes.high.push_back(static_cast<uint8_t>(rotated >> 8));
    planes.low.push_back(static_cast<uint8_t>(rotated));
  }
  return planes;
}

class PlaneSplitTest : public ::testing::TestWithParam<int64_t> {
 protected:
  // The machine's every instruction set, not only the best one, which dispatch would pick.
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

// Lengths around every vector size, at addresses that are not aligned; guard bytes show a write beyond the end.
TEST_P(PlaneSplitTest, AgreesWithTheDefinitionAtEveryLength) {
  std::mt19937 random(1);
  constexpr uint8_t kGuard = 0xa5;
  for (size_t n = 0; n <= 300; ++n) {
    std::vector<uint8_t> words(2 * n);
    for (uint8_t& byte : words) byte = static_cast<uint8_t>(random());
    const Planes expected = Reference(words);

    std::vector<uint8_t> unaligned(2 * n + 1);
    std::copy(words.begin(), words.end(), unaligned.begin() + 1);
    Planes planes{std::vector<uint8_t>(n + 2, kGuard), std::vector<uint8_t>(n + 2, kGuard)};
    SplitPlanes16(unaligned.data() + 1, n, planes.high.data() + 1, planes.low.data() + 1);
    for (std::vector<uint8_t>* plane : {&planes.high, &planes.low}) {
      ASSERT_EQ(plane->front(), kGuard) << n;
      ASSERT_EQ(plane->back(), kGuard) << n;
      plane->erase(plane->begin());
      plane->pop_back();
    }
    ASSERT_EQ(planes, expected) << n;

    std::vector<uint8_t> merged(2 * n + 2, kGuard);
    MergePlanes16(planes.high.data(), planes.low.data(), n, merged.data() + 1);
    ASSERT_EQ(merged.front(), kGuard) << n;
    ASSERT_EQ(merged.back(), kGuard) << n;
    ASSERT_TRUE(std::equal(words.begin(), words.end(), merged.begin() + 1)) << n;
  }
}

TEST_P(PlaneSplitTest, EveryWordComesBack) {
  constexpr size_t kWords = 65536;
  std::vector<uint8_t> words(2 * kWords), high(kWords), low(kWords), merged(2 * kWords);
  for (size_t i = 0; i < kWords; ++i) {
    words[2 * i] = static_cast<uint8_t>(i);
    words[2 * i + 1] = static_cast<uint8_t>(i >> 8);
  }
  SplitPlanes16(words.data(), kWords, high.data(), low.data());
  EXPECT_EQ((Planes{high, low}), Reference(words));
  MergePlanes16(high.data(), low.data(), kWords, merged.data());
  EXPECT_EQ(merged, words);
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, PlaneSplitTest, ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace kdn
