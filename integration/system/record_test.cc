// A trace that kdnctl records from a cluster of two nodes is what a client asked for, and replays to the same hit
// ratio.
#include <gmock/gmock.h>
#include <signal.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "integration/system/cluster_fixture.h"
#include "integration/system/node_fixture.h"

namespace kdn {
namespace {

using Json = nlohmann::json;

std::string ReadText(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class RecordTest : public ClusterFixture {
 protected:
  std::vector<std::string> Argv(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {KDNCTL_PATH, "-o", "json", "--placement", PlacementAddresses().front()});
    return arguments;
  }
  std::string Path(const std::string& name) const { return (directory_.path() / name).string(); }
};

TEST_F(RecordTest, ATraceOfAClusterIsWhatWasAskedAndReplaysToTheSameHitRatio) {
  StartPlacements(1);
  StartNodes(2, {"--memory-bytes", "64MiB"});
  AwaitSettled(2);
  const std::string log = Path("record.log");
  ChildProcess recorder =
      ChildProcess::Start(Argv({"analytics", "record", Path("trace.jsonl"), "--window", "1s"}), log).value();
  for (const absl::Time give_up = absl::Now() + absl::Minutes(1);
       ReadText(log).find("recording;") == std::string::npos;) {
    ASSERT_LT(absl::Now(), give_up) << ReadText(log);
    ASSERT_TRUE(recorder.Running()) << ReadText(log);
    absl::SleepFor(absl::Milliseconds(20));
  }

  // Prompts that share some of their beginnings: so many chunks of a document, and then of another one.
  const std::unique_ptr<Client> client = NewDocumentClient(NewTransport());
  struct Prompt {
    uint32_t shared;  // tokens of the common beginning
    uint32_t own;     // which end, of 64 tokens
  };
  const std::vector<Prompt> prompts = {{128, 1}, {128, 2}, {128, 1}, {64, 3}, {0, 4}, {128, 2}, {256, 5}, {0, 4}};
  const auto token = [](uint32_t document, uint32_t i) {
    return static_cast<Token>((document * 7919 + i * 31) % 30000);
  };
  std::vector<std::vector<ChunkKey>> asked;
  size_t asked_chunks = 0;
  size_t hit_chunks = 0;
  for (const Prompt& prompt : prompts) {
    std::vector<Token> tokens;
    for (uint32_t i = 0; i < prompt.shared; ++i) tokens.push_back(token(0, i));
    for (uint32_t i = 0; i < 64; ++i) tokens.push_back(token(prompt.own, i));
    const PrefixHit hit = client->LookupPrefix(tokens, {.deadline = absl::Seconds(10)});
    std::vector<ChunkKey>& keys = asked.emplace_back();
    for (const ChunkRef& chunk : hit.chunks) keys.push_back(chunk.key);
    asked_chunks += hit.chunks.size();
    hit_chunks += hit.HitChunks().size();
    if (hit.MissedChunks().empty()) continue;
    const PromptMemory kv(static_cast<uint32_t>(tokens.size()), 1);
    const absl::StatusOr<StoreReport> stored =
        client->Store(hit.MissedChunks(), kv.view(), {.deadline = absl::Seconds(10), .codec = "raw"});
    ASSERT_TRUE(stored.ok()) << stored.status();
    ASSERT_EQ(stored->Stored(), hit.MissedChunks().size());
  }
  ASSERT_GT(hit_chunks, 0u);
  // Nodes tell of what they were asked ten times a second.
  absl::SleepFor(absl::Milliseconds(500));
  ASSERT_EQ(::kill(recorder.id(), SIGINT), 0);
  ASSERT_EQ(recorder.Wait(absl::Minutes(1)).value(), 0) << ReadText(log);

  std::ifstream trace(Path("trace.jsonl"));
  std::vector<std::vector<uint32_t>> recorded;
  std::vector<uint32_t> lengths;
  uint64_t last = 0;
  for (std::string line; std::getline(trace, line);) {
    const Json json = Json::parse(line);
    recorded.push_back(json["hash_ids"].get<std::vector<uint32_t>>());
    lengths.push_back(json["input_length"].get<uint32_t>());
    EXPECT_GE(json["timestamp"].get<uint64_t>(), last);
    last = json["timestamp"].get<uint64_t>();
  }
  ASSERT_EQ(recorded.size(), asked.size()) << ReadText(log);
  // Equal ids exactly where chunks are equal.
  std::map<ChunkKey, uint32_t> id_of;
  std::map<uint32_t, ChunkKey> key_of;
  for (size_t i = 0; i < asked.size(); ++i) {
    ASSERT_EQ(recorded[i].size(), asked[i].size()) << "request " << i << "\n" << ReadText(log);
    EXPECT_EQ(lengths[i], prompts[i].shared + 64) << i;
    for (size_t k = 0; k < asked[i].size(); ++k) {
      EXPECT_EQ(id_of.emplace(asked[i][k], recorded[i][k]).first->second, recorded[i][k]);
      EXPECT_EQ(key_of.emplace(recorded[i][k], asked[i][k]).first->second, asked[i][k]);
    }
  }

  const std::string replayed = Path("replay.log");
  ChildProcess replay =
      ChildProcess::Start(Argv({"replay", Path("trace.jsonl"), "--memory", "1GiB", "--token-bytes", "8"}), replayed)
          .value();
  ASSERT_EQ(replay.Wait(absl::Minutes(1)).value(), 0) << ReadText(replayed);
  const Json json = Json::parse(ReadText(replayed));
  EXPECT_NEAR(json["capacities"][0]["hit_percent"].get<double>(),
              100.0 * static_cast<double>(hit_chunks) / static_cast<double>(asked_chunks), 0.01);
}

}  // namespace
}  // namespace kdn
