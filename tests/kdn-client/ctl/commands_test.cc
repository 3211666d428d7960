// Commands against a node in this process: their exit codes, and their JSON.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "kdn-client/ctl/app.h"
#include "kdn-client/ctl/report.h"
#include "kdn-node/analytics_service.h"
#include "tests/kdn-node/node_test.h"

namespace kdn::ctl {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
  Json json() const {
    Json parsed = Json::parse(out, nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(parsed.is_discarded()) << out << err;
    return parsed;
  }
};

class CtlCommandsTest : public NodeTest {
 protected:
  void StartCtl() {
    store_options_.disks = {{.path = directory_.path() + "/disk", .bytes = uint64_t{1} << 30}};
    server_options_.admin.disk_paths = {store_options_.disks[0].path};
    StartNode();
  }

  // With -o json, as a script would call it.
  Outcome Run(std::vector<std::string> arguments, const std::string& input = "", bool on_terminal = false) {
    arguments.insert(arguments.begin(), {"kdnctl", "--node", server_->endpoint().ToString(), "-o", "json"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out;
    std::ostringstream err;
    std::istringstream in(input);
    Terminal terminal{.out = out, .err = err, .in = in, .err_is_terminal = on_terminal, .in_is_terminal = on_terminal};
    const int code = RunCtl(static_cast<int>(argv.size()), argv.data(), terminal);
    return {code, out.str(), err.str()};
  }

  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  static std::string KeyOf(const Chunk& chunk) { return chunk.manifest->key.ToHex(); }
  std::string SpaceHex() const { return testing::IdOf(space()).ToHex(); }

  testing::TempDir directory_;
};

TEST_F(CtlCommandsTest, StatusTellsOfTheNode) {
  StartCtl();
  MustStore(MakeChunks(2));
  const Outcome ran = Run({"status"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.json()["version"], KDN_VERSION);
  EXPECT_EQ(ran.json()["tiers"][0]["tier"], "memory");
  EXPECT_EQ(ran.json()["tiers"][0]["chunks"], 2);
  EXPECT_EQ(ran.json()["tiers"][1]["tier"], "disk");
  EXPECT_TRUE(ran.json()["cluster"].is_null());
}

TEST_F(CtlCommandsTest, SpacesAreListedAndNamedByTheirFirstDigits) {
  StartCtl();
  EXPECT_EQ(Run({"spaces"}).json()["spaces"].size(), 0u);
  MustStore(MakeChunks(3));
  const Outcome ran = Run({"spaces"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.json()["spaces"][0]["space"], SpaceHex());
  EXPECT_EQ(ran.json()["spaces"][0]["chunks"], 3);
  EXPECT_EQ(ran.json()["spaces"][0]["dtype"], "bf16");
  EXPECT_EQ(Run({"export", Path("a"), "--space", SpaceHex().substr(0, 6)}).code, 0);
  EXPECT_EQ(Run({"export", Path("b"), "--space", "ffffffffff"}).code, 3);
  EXPECT_THAT(Run({"export", Path("b"), "--space", "abc"}).err, HasSubstr("at least 4"));
}

TEST_F(CtlCommandsTest, QuotasAreShownAndChangedAndOutliveARestart) {
  store_options_.memory_bytes = 1 << 20;
  const auto start = [&] {
    const auto quotas = QuotaBook::Open(directory_.path(), {.each = 0.5}).value();
    server_options_.admin.quotas = quotas;
    store_options_.quotas = quotas->InForce();
    StartCtl();
  };
  start();
  const std::vector<Chunk> chunks = MakeChunks(4);
  MustStore(chunks, v1::ACK_DURABLE);
  Json json = Run({"spaces"}).json();
  EXPECT_EQ(json["default_quota_percent"], 50);
  EXPECT_EQ(json["spaces"][0]["quota_percent"], 50);
  EXPECT_EQ(json["spaces"][0]["quota_source"], "flag (default)");
  EXPECT_EQ(json["spaces"][0]["quota_mark"], "ok");
  ASSERT_EQ(json["quotas"].size(), 2u) << "memory and the disk";
  EXPECT_EQ(json["quotas"][0]["limit_bytes"], 1 << 19);
  const auto used = json["quotas"][0]["used_bytes"].get<double>();
  EXPECT_EQ(used, static_cast<double>(store_->Stats().memory.bytes));

  // Room for two and a half of the four chunks in memory.
  const std::string share = fmt::format("{}%", 100 * used / 4 * 2.5 / (1 << 20));
  const Outcome refused = Run({"spaces", "quota", SpaceHex(), share});
  EXPECT_EQ(refused.code, 7) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("evict"));
  EXPECT_EQ(store_->Stats().memory.chunks, 4u);
  const Outcome set = Run({"spaces", "quota", SpaceHex().substr(0, 8), share, "--yes"});
  EXPECT_EQ(set.code, 0) << set.err;
  EXPECT_EQ(set.json()["nodes"][0]["source"], "run time");
  EXPECT_EQ(set.json()["nodes"][0]["evicted_chunks"], 2);
  EXPECT_EQ(set.json()["nodes"][0]["kept"], true);
  EXPECT_EQ(store_->Stats().memory.chunks, 2u);
  const Outcome doctor = Run({"doctor"});
  EXPECT_EQ(doctor.code, 0) << doctor.out;
  EXPECT_THAT(doctor.out, HasSubstr("run time"));

  server_->Stop(absl::Seconds(5));
  server_ = nullptr;
  store_ = nullptr;
  start();
  json = Run({"spaces"}).json();
  EXPECT_EQ(json["spaces"][0]["quota_source"], "run time");
  EXPECT_EQ(Run({"spaces", "quota", SpaceHex(), "none"}).code, 7) << "who knows what the flags say";
  EXPECT_EQ(Run({"spaces", "quota", SpaceHex(), "none", "--yes"}).code, 0);
  EXPECT_EQ(Run({"spaces"}).json()["spaces"][0]["quota_source"], "flag (default)");
  EXPECT_EQ(Run({"spaces", "quota", "--default", "100%"}).code, 0) << "nothing has to go";
  EXPECT_TRUE(Run({"spaces"}).json()["spaces"][0]["quota_percent"].is_null());
  // For a space that is still to come.
  EXPECT_EQ(Run({"spaces", "quota", std::string(64, 'a'), "10%"}).code, 0);
  EXPECT_EQ(Run({"spaces"}).json()["spaces"].size(), 1u);
  EXPECT_EQ(Run({"spaces", "quota", SpaceHex(), "10"}).code, 2);
  EXPECT_EQ(Run({"spaces", "quota", SpaceHex(), "101%"}).code, 2);
  EXPECT_EQ(Run({"spaces", "quota", SpaceHex()}).code, 2);
  EXPECT_EQ(Run({"spaces", "quota", "--default", "5%", SpaceHex()}).code, 2);
}

TEST_F(CtlCommandsTest, ARecordedTraceIsWhatWasAsked) {
  const auto analytics = std::make_shared<AnalyticsRecorder>(AnalyticsOptions{});
  store_options_.observer = analytics;
  ServeAnalytics(analytics, server_options_);
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore({chunks[0], chunks[1]});
  Outcome recorded;
  std::thread recorder([&] {
    recorded = Run({"analytics", "record", Path("trace"), "--requests", "3", "--window", "300ms"});
  });
  ASSERT_TRUE(Eventually([&] { return analytics->requests().wanted(); }));
  Lookup({chunks[0], chunks[1]});
  Lookup({chunks[0], chunks[2]});
  Lookup({chunks[2]});
  recorder.join();
  EXPECT_EQ(recorded.code, 0) << recorded.err;
  EXPECT_EQ(recorded.json()["requests"], 3);
  EXPECT_EQ(recorded.json()["distinct_chunks"], 3);
  std::ifstream trace(Path("trace"));
  std::vector<Json> lines;
  for (std::string line; std::getline(trace, line);) lines.push_back(Json::parse(line));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["hash_ids"], Json::array({0, 1}));
  EXPECT_EQ(lines[0]["input_length"], 32);
  EXPECT_EQ(lines[1]["hash_ids"], Json::array({0, 2}));
  EXPECT_EQ(lines[2]["hash_ids"], Json::array()) << "it came behind another chunk before";
  EXPECT_FALSE(std::filesystem::exists(Path("trace.part")));
  EXPECT_EQ(Run({"analytics", "record", Path("trace"), "--duration", "100ms"}).code, 7) << "the file is there";
  EXPECT_EQ(Run({"analytics", "record", Path("no/such"), "--duration", "100ms"}).code, 2);
  EXPECT_EQ(Run({"analytics", "record", Path("x"), "--sample", "0"}).code, 2);
}

TEST_F(CtlCommandsTest, LookupAndWhyTellOfChunksByKey) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]}, v1::ACK_DURABLE);
  const Outcome held = Run({"lookup", KeyOf(chunks[0])});
  EXPECT_EQ(held.code, 0) << held.err;
  EXPECT_EQ(held.json()["chunks"][0]["tiers"], Json::array({"memory"}));
  const Outcome both = Run({"lookup", "-"}, KeyOf(chunks[0]) + "\n" + KeyOf(chunks[1]) + "\n");
  EXPECT_EQ(both.code, 3);
  EXPECT_EQ(both.json()["chunks_held"], 1);
  EXPECT_EQ(both.json()["chunks_missing"], 1);
  const Outcome why = Run({"why", KeyOf(chunks[0])});
  EXPECT_EQ(why.code, 0) << why.err;
  EXPECT_EQ(why.json()["reason"], "held");
  EXPECT_EQ(why.json()["nodes"][0]["tiers"], Json::array({"memory", "disk"}));
  const Outcome gone = Run({"why", KeyOf(chunks[1])});
  EXPECT_EQ(gone.code, 3);
  EXPECT_EQ(gone.json()["reason"], "never_stored");
}

TEST_F(CtlCommandsTest, WhyFindsTheChunkThatIsMissingBefore) {
  StartCtl();
  Chunk orphan = testing::MakeChunk(space(), 5);
  Manifest manifest = *orphan.manifest;
  manifest.parent = testing::MakeChunk(space(), 4).manifest->key;
  manifest.first_token = 16;
  orphan.manifest = std::make_shared<Manifest>(manifest);
  MustStore({orphan});
  const Outcome ran = Run({"why", KeyOf(orphan)});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.json()["reason"], "orphan");
  EXPECT_EQ(ran.json()["missing_ancestor"], manifest.parent.ToHex());
}

TEST_F(CtlCommandsTest, LookupOfTokensGoesByTheSpacesChunks) {
  StartCtl();
  // What MakeChunk(seed 1) stands for is a chain of its own; here the chunk is stored under the key of known tokens.
  std::vector<Token> tokens(40);
  for (uint32_t i = 0; i < tokens.size(); ++i) tokens[i] = i;
  const std::vector<ChunkRef> chain = *ChunkChain(testing::IdOf(space()), 16, tokens, /*whole_only=*/true);
  Chunk chunk = testing::MakeChunk(space(), 1);
  Manifest manifest = *chunk.manifest;
  manifest.key = chain[0].key;
  manifest.parent = {};
  chunk.manifest = std::make_shared<Manifest>(manifest);
  MustStore({chunk});
  std::ofstream(Path("tokens")) << Json(tokens).dump() << "\n";
  const Outcome ran = Run({"lookup", "--tokens", Path("tokens")});
  EXPECT_EQ(ran.code, 3) << ran.err;  // the second chunk is missing
  const Json document = ran.json()["documents"][0];
  EXPECT_EQ(document["chunks"], 2);
  EXPECT_EQ(document["prefix_chunks"], 1);
  EXPECT_EQ(document["prefix_tokens"], 16);
  EXPECT_EQ(document["stopped_by"], "not_found");
  EXPECT_EQ(document["stopped_at"], chain[1].key.ToHex());

  const Outcome why = Run({"why", "--tokens", Path("tokens")});
  EXPECT_EQ(why.code, 3) << why.err;
  EXPECT_EQ(why.json()["prefix_chunks"], 1);
  EXPECT_EQ(why.json()["prefix_tokens"], 16);
  EXPECT_EQ(why.json()["key"], chain[1].key.ToHex());
  EXPECT_EQ(why.json()["reason"], "never_stored");

  tokens.resize(20);
  std::ofstream(Path("tokens")) << Json(tokens).dump() << "\n";
  const Outcome whole = Run({"why", "--tokens", Path("tokens")});
  EXPECT_EQ(whole.code, 0) << whole.err;
  EXPECT_EQ(whole.json()["prefix_chunks"], 1);
  EXPECT_EQ(whole.json()["reason"], "held");

  std::ofstream(Path("tokens")) << "[1, 2, 3]\n[4, 5, 6]\n";
  EXPECT_EQ(Run({"why", "--tokens", Path("tokens")}).code, 2) << "two documents";
  std::ofstream(Path("tokens")) << "[1, 2, 3]\n";
  EXPECT_THAT(Run({"why", "--tokens", Path("tokens")}).err, HasSubstr("shorter than a chunk"));
}

TEST_F(CtlCommandsTest, WhatIsGotCanBePutBack) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks);
  const Outcome got = Run({"get", KeyOf(chunks[0]), KeyOf(chunks[2]), "-f", Path("two.kdna")});
  EXPECT_EQ(got.code, 0) << got.err;
  EXPECT_EQ(got.json()["chunks"], 2);
  EXPECT_EQ(Run({"get", KeyOf(chunks[0]), "-f", Path("two.kdna")}).code, 2) << "it is not overwritten unasked";
  EXPECT_EQ(Run({"get", KeyOf(chunks[0]), KeyOf(testing::MakeChunk(space(), 99)), "-f", Path("one.kdna")}).code, 8);
  EXPECT_EQ(Run({"get", KeyOf(testing::MakeChunk(space(), 99)), "-f", Path("none.kdna")}).code, 3);

  EXPECT_EQ(Run({"delete", KeyOf(chunks[0]), KeyOf(chunks[2]), "--yes"}).json()["erased"], 2);
  EXPECT_EQ(Run({"lookup", KeyOf(chunks[0])}).code, 3);
  const Outcome put = Run({"put", Path("two.kdna"), "--ack", "durable", "--ttl", "1h"});
  EXPECT_EQ(put.code, 0) << put.err;
  EXPECT_EQ(put.json()["stored"], 2);
  const Outcome back = Run({"lookup", KeyOf(chunks[0])});
  EXPECT_EQ(back.code, 0);
  EXPECT_GT(back.json()["chunks"][0]["expires_in_seconds"], 3000);
  ExpectWhole(Fetch(FetchRequestFor({chunks[0]})), 0, chunks[0]);
}

TEST_F(CtlCommandsTest, AnImportThatIsRunAgainSendsNothingTwice) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(600, 1);
  MustStore(chunks);
  ASSERT_EQ(Run({"export", Path("all.kdna")}).json()["chunks"], 600);
  ASSERT_EQ(Run({"clear", "--space", SpaceHex(), "--yes"}).json()["cleared"], 600);
  MustStore({chunks.begin(), chunks.begin() + 250});  // as an import that broke off left it
  const Outcome rest = Run({"import", Path("all.kdna")});
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(rest.json()["stored"], 350);
  EXPECT_EQ(rest.json()["held_already"], 250);
  EXPECT_EQ(Run({"import", Path("all.kdna")}).json()["stored"], 0);
}

TEST_F(CtlCommandsTest, ADamagedArchiveIsRefusedBeforeAnythingIsStored) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(3);
  MustStore(chunks);
  ASSERT_EQ(Run({"export", Path("all.kdna")}).code, 0);
  ASSERT_EQ(Run({"clear", "--space", SpaceHex(), "--yes"}).code, 0);
  std::fstream file(Path("all.kdna"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-60, std::ios::end);
  file.put('\x5a');
  file.close();
  const Outcome ran = Run({"import", Path("all.kdna")});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("take another copy"));
  EXPECT_TRUE(store_->Keys().empty());
}

TEST_F(CtlCommandsTest, WhatErasesAsksAndRefusesWithoutATerminal) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore(chunks);
  const Outcome refused = Run({"clear", "--space", SpaceHex()});
  EXPECT_EQ(refused.code, 7);
  EXPECT_THAT(refused.err, HasSubstr("--yes"));
  EXPECT_EQ(Run({"delete", KeyOf(chunks[0])}, "n\n", /*on_terminal=*/true).code, 7);
  EXPECT_EQ(Run({"delete", KeyOf(chunks[0])}, "\n", /*on_terminal=*/true).code, 7);
  EXPECT_EQ(store_->Keys().size(), 2u);
  const Outcome agreed = Run({"delete", KeyOf(chunks[0])}, "y\n", /*on_terminal=*/true);
  EXPECT_EQ(agreed.code, 0) << agreed.err;
  EXPECT_THAT(agreed.err, HasSubstr("erase 1 chunks. Go on?"));
  EXPECT_EQ(store_->Keys().size(), 1u);
  EXPECT_EQ(Run({"delete", KeyOf(chunks[0]), "--yes"}).code, 3);
}

TEST_F(CtlCommandsTest, APinIsALeaseThatUnpinEnds) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(2);
  MustStore({chunks[0]});
  const Outcome pinned = Run({"pin", KeyOf(chunks[0]), "--for", "5m"});
  EXPECT_EQ(pinned.code, 0) << pinned.err;
  EXPECT_EQ(pinned.json()["leases"][0]["pinned"], 1);
  EXPECT_EQ(Stats().pinned_chunks(), 1u);
  const std::string lease = pinned.json()["leases"][0]["lease"];
  EXPECT_EQ(Run({"unpin", lease}).code, 0);
  EXPECT_EQ(Stats().pinned_chunks(), 0u);
  EXPECT_EQ(Run({"unpin", lease}).code, 3);
  EXPECT_EQ(Run({"pin", KeyOf(chunks[0]), KeyOf(chunks[1])}).code, 8) << "one of them is not held";
  EXPECT_EQ(Run({"pin", KeyOf(chunks[1])}).code, 3);
}

TEST_F(CtlCommandsTest, WarmBringsChunksFromDiskToMemoryAndGoesOnWhereItWas) {
  store_options_.memory_bytes = uint64_t{8} << 20;
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(300, 1);
  MustStore(chunks, v1::ACK_DURABLE);
  server_.reset();
  store_.reset();
  StartNode();  // memory is empty again
  std::ofstream keys(Path("keys"));
  for (const Chunk& chunk : chunks) keys << KeyOf(chunk) << "\n";
  keys.close();
  const Outcome ran = Run({"warm", "@" + Path("keys"), "--state", Path("state")});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.json()["in_memory"], 300);
  EXPECT_FALSE(std::filesystem::exists(Path("state"))) << "it is done";
  EXPECT_EQ(Run({"status"}).json()["tiers"][0]["chunks"], 300);
  EXPECT_EQ(Run({"warm", "@" + Path("keys"), KeyOf(testing::MakeChunk(space(), 9999))}).code, 8);
}

TEST_F(CtlCommandsTest, VerifyNamesWhatIsDamagedAndExitsWith6) {
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(20);
  MustStore(chunks, v1::ACK_DURABLE);
  const Outcome whole = Run({"verify"});
  EXPECT_EQ(whole.code, 0) << whole.err;
  EXPECT_EQ(whole.json()["tiers"].size(), 2u);
  EXPECT_EQ(whole.json()["tiers"][1]["chunks"], 20);
  testing::FlipBitUnder(Path("disk/segments"), chunks[3].slabs[1].span());
  const Outcome damaged = Run({"verify", "--tier", "disk"});
  EXPECT_EQ(damaged.code, 6);
  EXPECT_EQ(damaged.json()["problems"], 1);
  EXPECT_EQ(damaged.json()["damaged"][0]["key"], KeyOf(chunks[3]));
  EXPECT_EQ(Run({"doctor"}).code, 6) << "what was dropped is a problem for the doctor as well";
}

TEST_F(CtlCommandsTest, TheDoctorFindsNothingAtAHealthyNode) {
  store_options_.memory_bytes = uint64_t{1} << 20;
  store_options_.disks = {};
  StartNode();
  const Outcome ran = Run({"doctor"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  EXPECT_EQ(ran.json()["problems"], 0);
  EXPECT_GT(ran.json()["ok"], 2);
}

TEST_F(CtlCommandsTest, BenchMeasuresAndCleansUp) {
  StartCtl();
  const Outcome ran = Run({"bench", "--chunks", "20", "--chunk-bytes", "64KiB"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  ASSERT_EQ(ran.json()["phases"].size(), 3u);
  EXPECT_EQ(ran.json()["phases"][2]["call"], "fetch");
  EXPECT_EQ(ran.json()["phases"][2]["bytes"], 20 * 65536);
  EXPECT_EQ(ran.json()["phases"][2]["failed_chunks"], 0);
  EXPECT_TRUE(store_->Keys().empty());
}

TEST_F(CtlCommandsTest, TopShowsRatesAsOftenAsAsked) {
  StartCtl();
  const Outcome ran = Run({"top", "--interval", "1ms", "--count", "1"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.json()["nodes"].size(), 1u);
  EXPECT_EQ(ran.json()["nodes"][0]["memory_bytes"], 0);
}

TEST_F(CtlCommandsTest, ReplayAgainstANodeHitsWhatTheTraceRepeats) {
  StartCtl();
  std::ofstream trace(Path("trace.jsonl"));
  // One at a time: 3 new blocks; the same 3; 2 of them and a new one.
  trace << R"({"timestamp": 0, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 3]})"
        << "\n"
        << R"({"timestamp": 1, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 3]})"
        << "\n"
        << R"({"timestamp": 2, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 4]})"
        << "\n";
  trace.close();
  const Outcome ran = Run({"replay", Path("trace.jsonl"), "--live", "--threads", "1", "--chunk-bytes", "4KiB"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  EXPECT_EQ(ran.json()["requests_sent"], 3);
  EXPECT_EQ(ran.json()["hit_chunks"], 5);
  EXPECT_EQ(ran.json()["stored_chunks"], 4);
  EXPECT_EQ(ran.json()["wrong_chunks"], 0);
  EXPECT_EQ(ran.json()["hits_by_tier"][0]["chunks"], 5);
  EXPECT_EQ(Run({"spaces"}).json()["spaces"][0]["chunks"], 4);

  const Outcome simulated = Run({"replay", Path("trace.jsonl"), "--memory", "1GiB,0", "--token-bytes", "8"});
  EXPECT_EQ(simulated.code, 0) << simulated.err;
  EXPECT_NEAR(simulated.json()["capacities"][0]["hit_percent"], 100.0 * 5 / 9, 0.01);
  EXPECT_EQ(simulated.json()["capacities"][1]["hit_percent"], 0);
  EXPECT_EQ(Run({"replay", "/nonexistent"}).code, 3);
}

TEST_F(CtlCommandsTest, AnalyticsTellsWhatWasHitAndWhyTheRestMissed) {
  const auto analytics = std::make_shared<AnalyticsRecorder>(AnalyticsOptions{.prefill_tokens_per_second = 16});
  store_options_.observer = analytics;
  ServeAnalytics(analytics, server_options_);
  StartCtl();
  const std::vector<Chunk> chunks = MakeChunks(4);
  MustStore({chunks[0], chunks[1], chunks[2]});
  Lookup(chunks);
  ASSERT_TRUE(Fetch(FetchRequestFor({chunks[0], chunks[1], chunks[2]})).status.ok());

  const Outcome ran = Run({"analytics", "--space", SpaceHex().substr(0, 6)});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const Json json = ran.json();
  EXPECT_EQ(json["nodes"], 1);
  EXPECT_EQ(json["requests"], 1);
  EXPECT_DOUBLE_EQ(json["hit_tokens_percent"], 75);
  EXPECT_DOUBLE_EQ(json["prefill_seconds_saved"], 3);
  ASSERT_EQ(json["misses"].size(), 1u);
  EXPECT_EQ(json["misses"][0]["cause"], "never_stored");
  EXPECT_EQ(json["misses"][0]["chunks"], 1);
  EXPECT_EQ(json["tiers"][0]["tier"], "memory");
  EXPECT_DOUBLE_EQ(json["tiers"][0]["hit_percent"], 100);
  EXPECT_EQ(json["what_if"].size(), 5u);
  EXPECT_EQ(json["spaces"][0]["space"], SpaceHex());
  EXPECT_TRUE(json["not_counted"].empty());
  EXPECT_EQ(Run({"analytics", "--space", "no"}).code, 3) << "nothing was asked of such a space";
}

TEST_F(CtlCommandsTest, AnalyticsTellsWhatEnginesReported) {
  const auto analytics = std::make_shared<AnalyticsRecorder>(AnalyticsOptions{});
  ServeAnalytics(analytics, server_options_);
  StartCtl();
  MustStore(MakeChunks(1));
  EXPECT_FALSE(Run({"analytics"}).json().contains("blend")) << "nobody has blended anything";
  UseReport report = {.space = testing::IdOf(space()), .description = {.model = "acme/tiny", .tenant = "blue"}};
  report.prefilled_tokens = 1000;
  report.prefill_seconds = 10;
  report.blend = {.prompts = 2, .prompt_tokens = 200, .exact_tokens = 50, .moved_tokens = 100, .fresh_tokens = 50};
  report.blend.refused[static_cast<size_t>(BlendRefusal::kNoProfile)] = 3;
  analytics->Reported(report);
  UseReport other = {.space = report.space, .description = {.model = "acme/large"}};
  other.space.bytes[0] ^= 1;
  analytics->Reported(other);

  const Outcome ran = Run({"analytics", "--model", "acme/tiny", "--tenant", "blue"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const Json json = ran.json();
  ASSERT_EQ(json["spaces"].size(), 1u);
  EXPECT_EQ(json["spaces"][0]["model"], "acme/tiny");
  EXPECT_EQ(json["spaces"][0]["tenant"], "blue");
  EXPECT_EQ(json["spaces"][0]["prefill_source"], "engines");
  EXPECT_NEAR(json["spaces"][0]["prefill_tokens_per_second"].get<double>(), 100, 1e-9);
  EXPECT_EQ(json["blended_prompts"], 2);
  EXPECT_EQ(json["blend_refused_prompts"], 3);
  EXPECT_EQ(json["blend"][0]["percent"], 25);
  EXPECT_EQ(json["blend_refused"][0]["reason"], "no_profile");
  EXPECT_EQ(Run({"analytics"}).json()["spaces"].size(), 2u);
  const Outcome none = Run({"analytics", "--model", "nobodys"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, HasSubstr("acme/tiny"));
  EXPECT_EQ(Run({"analytics", "--model", "acme/large", "--tenant", "blue"}).code, 3);
  EXPECT_THAT(Run({"analytics", "-o", "table"}).out, HasSubstr("Why prompts were not blended"));

  EXPECT_EQ(Run({"spaces"}).json()["spaces"][0]["model"], "acme/tiny");
  EXPECT_EQ(Run({"spaces"}).json()["spaces"][0]["tenant"], "blue");
}

TEST_F(CtlCommandsTest, TablesAreForPeople) {
  StartCtl();
  MustStore(MakeChunks(1));
  const Outcome ran = Run({"spaces", "-o", "table"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("SPACE"));
  EXPECT_THAT(ran.out, HasSubstr(SpaceHex().substr(0, 16)));
}

}  // namespace
}  // namespace kdn::ctl
