#include "integration/engine/options.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kdn::engine {
namespace {

using testing::HasSubstr;

OptionsResult Parse(std::vector<const char*> flags) {
  flags.insert(flags.begin(), "kdn-engine");
  return ParseOptions(static_cast<int>(flags.size()), flags.data());
}

TEST(OptionsTest, ReadsWhatARunNeeds) {
  const OptionsResult parsed = Parse({"--random-model", "layers=2", "--prompt-file", "f", "--node", "127.0.0.1:7401",
                                      "--store", "durable", "--kv-dtype", "f16", "--deadline-ms", "70", "--json"});
  ASSERT_TRUE(parsed.options.has_value()) << parsed.text;
  EXPECT_EQ(parsed.options->prompt.store, Ack::kDurable);
  EXPECT_EQ(parsed.options->prompt.deadline, absl::Milliseconds(70));
  EXPECT_EQ(parsed.options->session.kv_dtype, DType::kF16);
  EXPECT_TRUE(parsed.options->json);
}

TEST(OptionsTest, RefusesBadFlagsInOneLineThatNamesThem) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "--prompt-file"},
      {{"--prompt-file", "f"}, "--model or --random-model"},
      {{"--prompt-file", "f", "--model", "d", "--random-model", "s"}, "--model"},
      {{"--prompt-file", "f", "--model", "d", "--store", "memory"}, "--store: needs --node"},
      {{"--prompt-file", "f", "--model", "d", "--node", "h:1", "--store", "tape"}, "--store"},
      {{"--prompt-file", "f", "--model", "d", "--node", "nowhere"}, "--node"},
      {{"--prompt-file", "f", "--model", "d", "--codec", "lzma"}, "--codec"},
      {{"--prompt-file", "f", "--model", "d", "--kv-dtype", "f64"}, "--kv-dtype"},
      {{"--prompt-file", "f", "--model", "d", "--deadline-ms", "0"}, "--deadline-ms"},
      {{"--prompt-file", "f", "--model", "d", "--generate", "-1"}, "--generate"},
      {{"--prompt-file", "f", "--model", "d", "--colour"}, "--colour"},
  };
  for (const auto& [flags, named] : cases) {
    const OptionsResult parsed = Parse(flags);
    EXPECT_FALSE(parsed.options.has_value()) << named;
    EXPECT_EQ(parsed.exit_code, 2);
    EXPECT_THAT(parsed.text, HasSubstr(named));
    EXPECT_EQ(parsed.text.find('\n'), parsed.text.size() - 1) << parsed.text;
  }
}

TEST(OptionsTest, HelpNamesEveryFlagAndSucceeds) {
  const OptionsResult parsed = Parse({"--help"});
  EXPECT_EQ(parsed.exit_code, 0);
  for (const char* flag : {"--model", "--random-model", "--prompt-file", "--max-prompt-tokens", "--generate", "--node",
                           "--store", "--kv-dtype", "--deadline-ms", "--codec", "--json", "--logits-out"}) {
    EXPECT_THAT(parsed.text, HasSubstr(flag));
  }
}

}  // namespace
}  // namespace kdn::engine
