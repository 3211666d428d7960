#include "kdn-client/ctl/chunk_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "kdn-client/ctl/samples.h"
#include "kdn-client/ctl/synthetic_kv.h"
#include "tests/storage/test_chunks.h"

namespace kdn::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kHexA(64, 'a');
const std::string kHexB(64, 'b');

std::string MessageFrom(const absl::Status& status) { return std::string(status.message()); }

TEST(ReadKeysTest, TakesDigitsFilesAndStandardInput) {
  const testing::TempDir directory;
  const std::string path = directory.path() + "/keys";
  std::ofstream(path) << "# two keys\n\n" << kHexB << "  \r\n" << kHexA << "\n";
  std::istringstream in(kHexA + "\n");
  const absl::StatusOr<std::vector<ChunkKey>> keys = ReadKeys({kHexA, "@" + path, "-"}, in);
  ASSERT_TRUE(keys.ok()) << keys.status();
  const ChunkKey a = *ChunkKey::FromHex(kHexA);
  const ChunkKey b = *ChunkKey::FromHex(kHexB);
  EXPECT_THAT(*keys, ElementsAre(a, b, a, a));
}

TEST(ReadKeysTest, NamesTheLineThatIsNoKey) {
  std::istringstream in(kHexA + "\nnonsense\n");
  EXPECT_THAT(MessageFrom(ReadKeys({"-"}, in).status()), HasSubstr("standard input, line 2"));
  EXPECT_THAT(MessageFrom(ReadKeys({"abc"}, in).status()), HasSubstr("key 'abc'"));
  EXPECT_TRUE(absl::IsNotFound(ReadKeys({"@/nonexistent"}, in).status()));
}

TEST(ParseTokensTest, TakesJsonAndNumbers) {
  EXPECT_THAT(*ParseTokens("[1, 2,3 ]"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*ParseTokens(" 4 5\t6\r"), ElementsAre(4, 5, 6));
  EXPECT_THAT(*ParseTokens("[4294967295]"), ElementsAre(4294967295U));
  EXPECT_THAT(*ParseTokens("[]"), IsEmpty());
  EXPECT_THAT(*ParseTokens(""), IsEmpty());
}

TEST(ParseTokensTest, RefusesAllElse) {
  for (const char* bad : {"[1, 2", "1, 2", "[1 2]", "[1,,2]", "[1,]", "[,1]", "-1", "4294967296", "1.5", "x", "[1] 2",
                          "1 [2]", "[\"1\"]", "[[1]]"}) {
    EXPECT_FALSE(ParseTokens(bad).ok()) << bad;
  }
}

TEST(TextTokensTest, AByteIsAToken) {
  EXPECT_THAT(TextTokens("a\xff", false), ElementsAre('a', 255));
  EXPECT_THAT(TextTokens("a", true), ElementsAre(256, 'a'));
}

TEST(SyntheticKvTest, ChunksTakeAboutTheBytesAskedForAndMatchTheirSeedAlone) {
  for (const uint64_t bytes : {uint64_t{2048}, uint64_t{64} << 10, uint64_t{1} << 20, uint64_t{5} << 20}) {
    const absl::StatusOr<KvSpace> space = SyntheticSpace("m", "1", 512, bytes);
    ASSERT_TRUE(space.ok()) << space.status();
    SyntheticKv kv(*space, 2);
    EXPECT_LE(kv.chunk_bytes(), bytes);
    EXPECT_GT(kv.chunk_bytes(), bytes * 9 / 10);
    kv.Fill(0, 7);
    kv.Fill(1, 8);
    EXPECT_TRUE(kv.Matches(0, 7));
    EXPECT_TRUE(kv.Matches(1, 8));
    EXPECT_FALSE(kv.Matches(1, 7));
  }
  EXPECT_FALSE(SyntheticSpace("m", "1", 512, 100).ok());
}

TEST(SamplesTest, PercentilesAreOfTheSamples) {
  Samples samples;
  for (int i = 100; i >= 1; --i) samples.Add(absl::Seconds(i));
  EXPECT_EQ(samples.Percentile(50), 50);
  EXPECT_EQ(samples.Percentile(99), 99);
  EXPECT_EQ(samples.Percentile(100), 100);
  EXPECT_EQ(samples.Percentile(0), 1);
}

}  // namespace
}  // namespace kdn::ctl
