// kdnctl, the binary, against real daemons: a node, and a cluster of three. Exit codes and JSON are what scripts rely
// on.
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "integration/system/cluster_fixture.h"
#include "integration/system/node_fixture.h"

namespace kdn {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string text;  // standard output and error
  // The object that standard output is, or null.
  Json json() const {
    const size_t begin = text.find('{');
    const size_t end = text.rfind('}');
    if (begin == std::string::npos || end == std::string::npos) return {};
    Json parsed = Json::parse(text.substr(begin, end - begin + 1), nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(parsed.is_discarded()) << text;
    return parsed;
  }
};

// Runs the binary with these arguments and -o json.
Outcome Kdnctl(const std::filesystem::path& directory, std::vector<std::string> arguments) {
  const std::filesystem::path output = directory / "kdnctl.out";
  std::filesystem::remove(output);
  arguments.insert(arguments.begin(), {KDNCTL_PATH, "-o", "json"});
  absl::StatusOr<ChildProcess> process = ChildProcess::Start(arguments, output.string());
  EXPECT_TRUE(process.ok()) << process.status();
  const absl::StatusOr<int> code = process->Wait(absl::Minutes(2));
  EXPECT_TRUE(code.ok()) << code.status();
  std::stringstream text;
  text << std::ifstream(output).rdbuf();
  return {code.ok() ? *code : -1, text.str()};
}

class KdnctlNodeTest : public NodeFixture {
 protected:
  Outcome Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--node", target()});
    return Kdnctl(directory_.path(), std::move(arguments));
  }
  std::string Path(const std::string& name) const { return (directory_.path() / name).string(); }
};

TEST_F(KdnctlNodeTest, MovesASpaceToAnEmptyNodeThroughAnArchive) {
  StartNode({"--disk-bytes", "64MiB"});
  const std::vector<Token> tokens = MakeTokens(1024, 1);
  const PromptMemory kv(1024, 2);
  const std::unique_ptr<Client> client = NewClient();
  const PrefixHit prompt = client->LookupPrefix(tokens, {.deadline = absl::Seconds(10)});
  const auto stored = client->Store(prompt.chunks, kv.view(), {.deadline = absl::Seconds(30), .ack = Ack::kDurable});
  ASSERT_TRUE(stored.ok() && stored->Stored() == 4u);

  std::ofstream(Path("tokens")) << Json(tokens).dump() << "\n";
  const Outcome lookup = Run({"lookup", "--tokens", Path("tokens")});
  EXPECT_EQ(lookup.code, 0) << lookup.text;
  EXPECT_EQ(lookup.json()["documents"][0]["prefix_tokens"], 1024);
  const std::string first = prompt.chunks[0].key.ToHex();
  EXPECT_EQ(Run({"why", first}).json()["reason"], "held");
  EXPECT_EQ(Run({"verify"}).code, 0);
  const Outcome doctor = Run({"doctor"});
  EXPECT_EQ(doctor.code, 0) << doctor.text;
  EXPECT_EQ(doctor.json()["problems"], 0);

  const Outcome exported = Run({"export", Path("space.kdna")});
  EXPECT_EQ(exported.code, 0) << exported.text;
  EXPECT_EQ(exported.json()["chunks"], 4);
  EXPECT_EQ(Run({"clear", "--space", client->space_id().ToHex()}).code, 7) << "there is no terminal to ask on";
  const Outcome cleared = Run({"clear", "--space", client->space_id().ToHex(), "--yes"});
  EXPECT_EQ(cleared.code, 0) << cleared.text;
  EXPECT_EQ(cleared.json()["cleared"], 4);
  EXPECT_EQ(Run({"lookup", first}).code, 3);
  const Outcome why = Run({"why", first});
  EXPECT_EQ(why.code, 3) << why.text;
  EXPECT_FALSE(why.json()["held"].get<bool>());

  const Outcome imported = Run({"import", Path("space.kdna"), "--ack", "durable"});
  EXPECT_EQ(imported.code, 0) << imported.text;
  EXPECT_EQ(imported.json()["stored"], 4);
  // What an engine fetches then is what the first one stored.
  PromptMemory back(1024);
  const auto fetched = client->Fetch(prompt.chunks, back.view(), {.deadline = absl::Seconds(30)});
  ASSERT_TRUE(fetched.ok());
  EXPECT_TRUE(fetched->AllReady());
  EXPECT_TRUE(back.Bytes(0, 1024) == kv.Bytes(0, 1024));

  const Outcome bench = Run({"bench", "--chunks", "32", "--chunk-bytes", "64KiB"});
  EXPECT_EQ(bench.code, 0) << bench.text;
  EXPECT_EQ(bench.json()["phases"][2]["failed_chunks"], 0);
}

TEST_F(KdnctlNodeTest, ANodeThatIsGoneIsToldByItsExitCode) {
  StartNode();
  StopNode();
  for (const char* command : {"status", "spaces", "verify", "top"}) {
    const Outcome ran = Run({command});
    EXPECT_EQ(ran.code, 4) << command << ": " << ran.text;
    EXPECT_THAT(ran.text, HasSubstr(target()));
  }
  EXPECT_EQ(Run({"doctor"}).code, 6) << "the doctor's finding";
}

TEST_F(KdnctlNodeTest, ItPrintsItsOwnCompletion) {
  StartNode();
  const Outcome ran = Run({"completion", "bash"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.text, HasSubstr("complete -F _kdnctl kdnctl"));
}

class KdnctlClusterTest : public ClusterFixture {
 protected:
  Outcome Run(std::vector<std::string> arguments) {
    std::string placement;
    for (const std::string& address : PlacementAddresses()) placement += (placement.empty() ? "" : ",") + address;
    arguments.insert(arguments.end(), {"--placement", placement});
    return Kdnctl(directory_.path(), std::move(arguments));
  }
  std::string Path(const std::string& name) const { return (directory_.path() / name).string(); }

  static Json NodeNamed(const Json& nodes, const std::string& id) {
    const auto at = std::find_if(nodes.begin(), nodes.end(), [&](const Json& node) { return node["id"] == id; });
    return at == nodes.end() ? Json() : *at;
  }
};

TEST_F(KdnctlClusterTest, LooksAfterAClusterOfThree) {
  StartPlacements(1);
  StartNodes(3);
  AwaitSettled(3);
  const std::unique_ptr<Client> client = NewDocumentClient(NewTransport());
  constexpr uint64_t kDocuments = 10;
  for (uint64_t number = 0; number < kDocuments; ++number) {
    ASSERT_TRUE(Document(number).Store(*client, Ack::kDurable, absl::Seconds(30)));
  }

  const Outcome status = Run({"status"});
  EXPECT_EQ(status.code, 0) << status.text;
  EXPECT_EQ(status.json()["nodes_by_state"][0]["nodes"], 3);
  EXPECT_EQ(Run({"topology"}).json()["nodes"].size(), 3u);
  const Outcome events = Run({"events", "--count", "1"});
  EXPECT_EQ(events.code, 0) << events.text;
  EXPECT_EQ(events.json()["kind"], "watching");
  const Outcome doctor = Run({"doctor"});
  EXPECT_NE(doctor.code, 4) << doctor.text;
  for (const Json& finding : doctor.json()["findings"]) {
    if (finding["check"] == "reachable" || finding["check"] == "session" || finding["check"] == "version") {
      EXPECT_EQ(finding["severity"], "ok") << finding;
    }
  }

  // Every chunk twice, as there are two replicas; an archive has it once.
  constexpr uint64_t kChunks = kDocuments * Document::kChunks;
  const Outcome spaces = Run({"spaces"});
  EXPECT_EQ(spaces.json()["spaces"][0]["chunks"], 2 * kChunks) << spaces.text;
  EXPECT_EQ(Run({"verify"}).code, 0);
  const Outcome exported = Run({"export", Path("all.kdna")});
  EXPECT_EQ(exported.code, 0) << exported.text;
  EXPECT_EQ(exported.json()["chunks"], kChunks);

  const std::string key = Document(3).chunks()[2].key.ToHex();
  const Outcome why = Run({"why", key});
  EXPECT_EQ(why.json()["reason"], "held") << why.text;
  EXPECT_EQ(why.json()["nodes"].size(), 2u);
  for (const Json& node : why.json()["nodes"]) EXPECT_EQ(node["role"], "owner");

  const Outcome pinned = Run({"pin", key});
  EXPECT_EQ(pinned.json()["leases"].size(), 2u) << pinned.text;
  for (const Json& lease : pinned.json()["leases"]) EXPECT_EQ(Run({"unpin", lease["lease"]}).code, 0);

  const Outcome cleared =
      Run({"clear", "--space", Json(spaces.json()["spaces"][0]["space"]).get<std::string>(), "--yes"});
  EXPECT_EQ(cleared.code, 0) << cleared.text;
  EXPECT_EQ(Run({"lookup", key}).code, 3);
  const Outcome imported = Run({"import", Path("all.kdna"), "--ack", "durable"});
  EXPECT_EQ(imported.code, 0) << imported.text;
  EXPECT_EQ(imported.json()["stored"], kChunks);
  for (uint64_t number = 0; number < kDocuments; ++number) {
    std::string reason;
    EXPECT_EQ(Document(number).Fetch(*client, absl::Seconds(30), &reason), Document::Outcome::kWhole) << reason;
  }

  // A drain without --yes is refused; with it, it returns when the node holds nothing that others need.
  EXPECT_EQ(Run({"drain", nodes_[0].name}).code, 7);
  const Outcome drained = Run({"drain", nodes_[0].name, "--yes", "--timeout", "100s"});
  EXPECT_EQ(drained.code, 0) << drained.text;
  EXPECT_EQ(drained.json()["partitions_left"], 0);
  EXPECT_EQ(NodeNamed(Run({"nodes"}).json()["nodes"], nodes_[0].name)["owned_partitions"], 0);
  EXPECT_EQ(Run({"drain", "no-such-node", "--yes"}).code, 3);
  EXPECT_EQ(Run({"weight", "no-such-node", "5"}).code, 3);

  // A node that is killed is told as such, and the doctor says what to mend.
  nodes_[1].Kill();
  AwaitState(nodes_[1].name, v1::NODE_STATE_DOWN);
  const Outcome sick = Run({"doctor"});
  EXPECT_EQ(sick.code, 6) << sick.text;
  EXPECT_GT(sick.json()["problems"], 0);
  EXPECT_EQ(Run({"clear", "--space", Json(spaces.json()["spaces"][0]["space"]).get<std::string>(), "--yes"}).code, 8)
      << "what the node that is down holds may come back";
}

}  // namespace
}  // namespace kdn
