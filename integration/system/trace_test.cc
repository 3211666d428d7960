// One request's id, from an engine's traceparent to the logs of all daemons that it touched.
#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "integration/system/cluster_fixture.h"
#include "integration/system/node_fixture.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

using nlohmann::json;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr char kTraceparent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr char kRequestId[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr uint32_t kTokens = 16 * 256;
constexpr absl::Duration kPatience = absl::Minutes(1);

const std::vector<std::string> kLogAll = {"--log-format", "json", "--log-requests", "all"};

std::vector<std::string> With(std::vector<std::string> flags, const std::vector<std::string>& more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

// A daemon's log; each line has to be one JSON object with a time and a level. A line that is still being written is
// left out.
std::vector<json> ReadLog(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  const std::string whole = text.str().substr(0, text.str().rfind('\n') + 1);
  std::istringstream in(whole);
  std::vector<json> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(json::parse(line, nullptr, /*allow_exceptions=*/false));
    EXPECT_TRUE(lines.back().is_object() && lines.back().contains("time") && lines.back().contains("level")) << line;
  }
  return lines;
}

std::vector<json> CallsOf(const std::vector<json>& lines, const std::string& call, const std::string& request = "") {
  std::vector<json> found;
  for (const json& line : lines) {
    if (line.value("call", "") == call && (request.empty() || line["request_id"] == request)) found.push_back(line);
  }
  return found;
}

uint64_t SumOf(const json& counts) {
  uint64_t sum = 0;
  for (const auto& [name, count] : counts.items()) sum += count.get<uint64_t>();
  return sum;
}

class TraceNodeTest : public NodeFixture {};

TEST_F(TraceNodeTest, AnEnginesRequestIsFoundInTheLogOfTheNode) {
  ASSERT_NO_FATAL_FAILURE(StartNode(With(kLogAll, {"--memory-bytes", "64MiB"})));
  const std::unique_ptr<Client> client = NewClient();
  const std::vector<Token> prompt = MakeTokens(kTokens, 1);
  const PromptMemory computed(kTokens, 1);
  PromptMemory fetched(kTokens);
  FetchReport report;
  StoreReport stored;
  {
    const ScopedTrace engine(*ParseTraceparent(kTraceparent));
    const PrefixHit hit = client->LookupPrefix(prompt, {.deadline = kPatience});
    EXPECT_EQ(hit.trace.RequestId(), kRequestId);
    stored = *client->Store(hit.MissedChunks(), computed.view(), {.deadline = kPatience, .ack = Ack::kDurable});
    ASSERT_EQ(stored.Stored(), hit.chunks.size());
    report = *client->Fetch(hit.chunks, fetched.view(), {.deadline = kPatience});
  }
  ASSERT_TRUE(report.AllReady());
  EXPECT_EQ(fetched.Bytes(0, kTokens), computed.Bytes(0, kTokens));
  (void)client->LookupPrefix(prompt, {.deadline = kPatience});  // of another request
  ASSERT_NO_FATAL_FAILURE(StopNode());

  const std::vector<json> lines = ReadLog(directory_.path() / "node.log");
  EXPECT_GT(lines.size(), CallsOf(lines, "lookup").size() + 2) << "ordinary messages are JSON as well";
  EXPECT_EQ(lines.back()["message"], "stopped");
  EXPECT_EQ(CallsOf(lines, "lookup").size(), 2u);
  ASSERT_EQ(CallsOf(lines, "lookup", kRequestId).size(), 1u);
  EXPECT_EQ(CallsOf(lines, "lookup", kRequestId)[0]["missed"]["not_found"], 16);
  const std::vector<json> fetches = CallsOf(lines, "fetch");
  ASSERT_EQ(fetches.size(), 1u);
  EXPECT_EQ(fetches[0]["request_id"], kRequestId);
  EXPECT_EQ(fetches[0]["parent_span_id"], report.trace.SpanHex());
  EXPECT_EQ(fetches[0]["sampled"], 1);
  EXPECT_EQ(fetches[0]["chunks"], 16);
  EXPECT_EQ(fetches[0]["found"], (json{{"memory", 16}}));
  EXPECT_EQ(fetches[0]["bytes"], report.encoded_bytes);
  EXPECT_EQ(fetches[0]["status"], "OK");
  uint64_t stored_bytes = 0;
  for (const json& store : CallsOf(lines, "store", kRequestId)) stored_bytes += store["bytes"].get<uint64_t>();
  EXPECT_EQ(stored_bytes, stored.encoded_bytes);
}

TEST_F(TraceNodeTest, KdnctlTellsTheRequestThatItsCallsAre) {
  ASSERT_NO_FATAL_FAILURE(StartNode(With({"--log-format", "json"}, {"--log-requests", "sampled"})));
  const auto kdnctl = [this](const std::vector<std::string>& arguments, int code) {
    const std::filesystem::path out = directory_.path() / "out";
    std::filesystem::remove(out);
    std::vector<std::string> argv = {KDNCTL_PATH};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    absl::StatusOr<ChildProcess> child = ChildProcess::Start(argv, out.string());
    EXPECT_TRUE(child.ok()) << child.status();
    EXPECT_EQ(*child->Wait(kPatience), code);
    std::ostringstream text;
    text << std::ifstream(out).rdbuf();
    return text.str();
  };
  const std::string key(64, 'a');
  const json given = json::parse(
      kdnctl({"why", key, "--node", target_, "-o", "json", "--trace-parent", kTraceparent}, /*not found*/ 3));
  EXPECT_EQ(given["request_id"], kRequestId);
  const json made = json::parse(kdnctl({"why", key, "--node", target_, "-o", "json"}, 3));
  EXPECT_NE(made["request_id"], kRequestId);
  EXPECT_THAT(kdnctl({"status", "--node", target_, "--trace-parent", "00-nonsense"}, /*usage*/ 2),
              HasSubstr("--trace-parent: traceparent: "));
  ASSERT_NO_FATAL_FAILURE(StopNode());
  EXPECT_THAT(kdnctl({"status", "--node", target_, "--trace-parent", kTraceparent}, /*unreachable*/ 4),
              HasSubstr(std::string("(request ") + kRequestId + ")"));

  const std::vector<json> lines = ReadLog(directory_.path() / "node.log");
  EXPECT_FALSE(CallsOf(lines, "explain", kRequestId).empty());
  EXPECT_FALSE(CallsOf(lines, "explain", made["request_id"]).empty());
}

class TraceClusterTest : public ClusterFixture {
 protected:
  static std::vector<json> LogOf(const Daemon& daemon) { return ReadLog(daemon.directory / "log"); }

  static std::unique_ptr<Client> ClientOver(std::shared_ptr<Transport> transport) {
    return Client::Create(SmallSpace(), std::move(transport)).value();
  }
};

TEST_F(TraceClusterTest, AFetchThatSpansNodesHasOneIdInAllLogs) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1, With(kLogAll, {"--replicas", "1"})));
  ASSERT_NO_FATAL_FAILURE(StartNodes(2, kLogAll));
  AwaitSettled(2);
  const std::unique_ptr<Client> client = ClientOver(NewTransport());
  const std::vector<Token> prompt = MakeTokens(kTokens, 2);
  const PromptMemory computed(kTokens, 2);
  PromptMemory fetched(kTokens);
  const PrefixHit hit = client->LookupPrefix(prompt, {.deadline = kPatience});
  ASSERT_EQ(client->Store(hit.MissedChunks(), computed.view(), {.deadline = kPatience})->Stored(), hit.chunks.size());
  FetchReport report;
  v1::RouteResponse route;
  {
    const ScopedTrace engine(*ParseTraceparent(kTraceparent));
    report = *client->Fetch(hit.chunks, fetched.view(), {.deadline = kPatience});
    v1::RouteRequest request;
    request.set_space_id(std::string(AsStringView(client->space_id().span())));
    for (const ChunkRef& chunk : hit.chunks) *request.mutable_keys() += AsStringView(chunk.key.span());
    request.set_ask_nodes(true);
    const absl::Status routed = Placement()->Route(request, absl::Now() + kPatience, route);
    EXPECT_TRUE(routed.ok()) << routed;
  }
  ASSERT_TRUE(report.AllReady());
  for (Daemon& node : nodes_) node.Stop();
  for (Daemon& placement : placements_) placement.Stop();

  uint64_t bytes = 0;
  uint64_t chunks = 0;
  for (const Daemon& node : nodes_) {
    const std::vector<json> lines = LogOf(node);
    const std::vector<json> fetches = CallsOf(lines, "fetch", kRequestId);
    EXPECT_FALSE(fetches.empty()) << node.name << " holds none of 16 chunks";
    for (const json& fetch : fetches) {
      EXPECT_EQ(fetch["node"], node.name);
      EXPECT_EQ(fetch["parent_span_id"], report.trace.SpanHex());
      bytes += fetch["bytes"].get<uint64_t>();
      chunks += SumOf(fetch["found"]);
    }
    EXPECT_FALSE(CallsOf(lines, "lookup", kRequestId).empty()) << "placement asked " << node.name << " for the route";
  }
  EXPECT_EQ(chunks, hit.chunks.size());
  EXPECT_EQ(bytes, report.encoded_bytes);
  const std::vector<json> routes = CallsOf(LogOf(placements_[0]), "route", kRequestId);
  ASSERT_EQ(routes.size(), 1u);
  EXPECT_EQ(routes[0]["chunks"], 16);
  EXPECT_EQ(routes[0]["asked_nodes"], 1);
}

TEST_F(TraceClusterTest, WhatANodeFetchesFromAnotherIsFoundInBothLogs) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1, {"--replicas", "2"}));
  ASSERT_NO_FATAL_FAILURE(StartNodes(1, kLogAll));
  AwaitSettled(1);
  const std::unique_ptr<Client> client = ClientOver(NewTransport());
  const std::vector<Token> prompt = MakeTokens(kTokens, 3);
  const PromptMemory computed(kTokens, 3);
  const PrefixHit hit = client->LookupPrefix(prompt, {.deadline = kPatience});
  ASSERT_EQ(client->Store(hit.MissedChunks(), computed.view(), {.deadline = kPatience})->Stored(), hit.chunks.size());
  ASSERT_NO_FATAL_FAILURE(StartNodes(1, kLogAll));
  AwaitSettled(2);
  for (Daemon& node : nodes_) node.Stop();

  const std::vector<json> pulls = CallsOf(LogOf(nodes_[1]), "pull");
  const std::vector<json> theirs = LogOf(nodes_[0]);
  uint64_t kept = 0;
  for (const json& pull : pulls) {
    EXPECT_EQ(pull["node"], nodes_[1].name);
    kept += pull["done"].get<uint64_t>();
    const std::vector<json> fetches = CallsOf(theirs, "fetch", pull["request_id"]);
    ASSERT_EQ(fetches.size(), 1u) << pull;
    EXPECT_EQ(fetches[0]["chunks"], pull["chunks"]);
  }
  EXPECT_EQ(kept, hit.chunks.size());
}

}  // namespace
}  // namespace kdn
