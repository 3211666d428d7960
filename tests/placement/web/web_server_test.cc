#include "placement/web/web_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/placement/analytics/fake_nodes.h"

namespace kdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class WebServerTest : public testing::Test {
 protected:
  WebServerTest() {
    history_ = *History::Open({}, clock_);
    collector_ = std::make_unique<Collector>(Collector::Options{.topology = [this] { return nodes_.topology(); }},
                                             nodes_, *history_, clock_);
    absl::StatusOr<std::unique_ptr<WebServer>> web =
        WebServer::Start({.listen = {.host = "127.0.0.1", .port = 0}}, *collector_, [](const std::string&) {
          auto load = std::make_shared<v1::NodeLoad>();
          load->set_busy_permille(250);
          return load;
        });
    EXPECT_TRUE(web.ok()) << web.status();
    web_ = *std::move(web);
    client_ = std::make_unique<httplib::Client>("127.0.0.1", web_->endpoint().port);
  }

  httplib::Response Get(const std::string& path, const httplib::Headers& headers = {}) {
    httplib::Result result = client_->Get(path, headers);
    EXPECT_TRUE(result) << path;
    return result ? *result : httplib::Response();
  }
  nlohmann::json GetJson(const std::string& path, int status = 200) {
    const httplib::Response response = Get(path);
    EXPECT_EQ(response.status, status) << path << ": " << response.body;
    EXPECT_EQ(response.get_header_value("Content-Type"), "application/json");
    EXPECT_EQ(response.get_header_value("Cache-Control"), "no-store");
    nlohmann::json json = nlohmann::json::parse(response.body, nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(json.is_discarded()) << response.body;
    return json;
  }

  ManualClock clock_{absl::FromUnixSeconds(1'000'010)};
  FakeNodes nodes_;
  std::unique_ptr<History> history_;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<WebServer> web_;
  std::unique_ptr<httplib::Client> client_;
};

TEST_F(WebServerTest, ServesThePageAndAllThatItNames) {
  const httplib::Response page = Get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.get_header_value("Content-Type"), StartsWith("text/html"));
  for (const char* asset :
       {"/style.css", "/theme.js", "/app.js", "/charts.js", "/panels.js", "/dom.js", "/format.js", "/chart.min.js"}) {
    const httplib::Response response = Get(asset);
    EXPECT_EQ(response.status, 200) << asset;
    EXPECT_GT(response.body.size(), 100u) << asset;
  }
  EXPECT_THAT(Get("/chart.min.js").body, HasSubstr("Chart.js"));
  EXPECT_THAT(page.body, Not(HasSubstr("http://fonts")));
  EXPECT_THAT(page.body, Not(HasSubstr("https://")));  // nothing from elsewhere
}

TEST_F(WebServerTest, ForbidsWhatAPageNeedNotDo) {
  for (const char* path : {"/", "/api/v1/overview", "/nowhere"}) {
    const httplib::Response response = Get(path);
    EXPECT_THAT(response.get_header_value("Content-Security-Policy"),
                AllOf(HasSubstr("default-src 'none'"), HasSubstr("frame-ancestors 'none'"), Not(HasSubstr("unsafe"))))
        << path;
    EXPECT_EQ(response.get_header_value("X-Content-Type-Options"), "nosniff");
    EXPECT_FALSE(response.has_header("Access-Control-Allow-Origin"));
  }
}

TEST_F(WebServerTest, NothingCanBeChanged) {
  EXPECT_EQ(client_->Post("/", "x", "text/plain")->status, 405);
  EXPECT_EQ(client_->Put("/api/v1/overview", "x", "text/plain")->status, 405);
  EXPECT_EQ(client_->Delete("/api/v1/history")->status, 405);
  EXPECT_EQ(client_->Options("/")->status, 405);
  EXPECT_EQ(client_->Delete("/")->get_header_value("Allow"), "GET, HEAD");
  const httplib::Result head = client_->Head("/");
  EXPECT_EQ(head->status, 200);
  EXPECT_THAT(head->body, testing::IsEmpty());
}

TEST_F(WebServerTest, AnUnchangedFileIsNotSentAgain) {
  const std::string etag = Get("/app.js").get_header_value("ETag");
  ASSERT_FALSE(etag.empty());
  EXPECT_EQ(Get("/app.js", {{"If-None-Match", etag}}).status, 304);
  EXPECT_EQ(Get("/app.js", {{"If-None-Match", "\"other\""}}).status, 200);
}

TEST_F(WebServerTest, AForeignNameThatPointsHereGetsNothing) {
  EXPECT_EQ(Get("/api/v1/history", {{"Host", "evil.example"}}).status, 421);
  EXPECT_EQ(Get("/", {{"Host", "evil.example:7413"}}).status, 421);
  EXPECT_EQ(Get("/", {{"Host", "localhost"}}).status, 200);
  EXPECT_EQ(Get("/", {{"Host", "localhost:7413"}}).status, 200);
  EXPECT_EQ(Get("/", {{"Host", "[::1]:7413"}}).status, 200);
}

TEST_F(WebServerTest, SpacesHaveNamesAndCanBeChosenByThem) {
  AnalyticsSnapshot snapshot = SnapshotOf({.tokens = 100, .missed = 40});
  snapshot.spaces[0].description = {.model = "acme/tiny", .tenant = "blue", .told = absl::UnixEpoch()};
  snapshot.spaces[0].blend = {.prompts = 3, .prompt_tokens = 100, .moved_tokens = 75};
  snapshot.spaces[0].blend.refused[static_cast<size_t>(BlendRefusal::kNoProfile)] = 2;
  snapshot.Add(SnapshotOf({.space = SpaceOf(2), .tokens = 300, .missed = 60}));
  nodes_.Set("a", snapshot);
  collector_->Round();
  EXPECT_EQ(GetJson("/api/v1/overview")["spaces"].size(), 2u);
  const nlohmann::json named = GetJson("/api/v1/overview?model=acme/tiny&tenant=blue");
  ASSERT_EQ(named["spaces"].size(), 1u);
  EXPECT_EQ(named["spaces"][0]["model"], "acme/tiny");
  EXPECT_EQ(named["spaces"][0]["tenant"], "blue");
  EXPECT_EQ(named["total"]["asked"]["tokens"], 100);
  EXPECT_EQ(named["total"]["blend"]["moved_tokens"], 75);
  EXPECT_EQ(named["total"]["blend"]["reused_ratio"], 0.75);
  EXPECT_EQ(named["total"]["blend"]["refused"]["no_profile"], 2);
  EXPECT_EQ(GetJson("/api/v1/overview?tenant=red")["spaces"].size(), 0u);
  EXPECT_EQ(GetJson("/api/v1/history?range=3600")["total"]["blend"]["prompts"], 3);
}

TEST_F(WebServerTest, OddRequestsAreRefused) {
  EXPECT_EQ(Get("/../../etc/passwd").status, 404);
  EXPECT_EQ(Get("/app.js", {{"Range", "bytes=0-0,0-0,0-0"}}).status, 416);
  EXPECT_EQ(Get("/" + std::string(10'000, 'a')).status, 414);
  GetJson("/api/v2/overview", 404);
}

TEST_F(WebServerTest, SaysSoBeforeTheNodesWereAsked) {
  EXPECT_THAT(GetJson("/api/v1/overview", 503)["error"].get<std::string>(), HasSubstr("asked yet"));
}

TEST_F(WebServerTest, TheOverviewHasTheNumbers) {
  AnalyticsSnapshot a = SnapshotOf({.tokens = 100, .missed = 40});
  a.curve.SetAsked({.chunks = 10, .tokens = 100, .bytes = 10000});
  a.curve.Add(2048, {.chunks = 5, .tokens = 50, .bytes = 5000});
  a.curve.Add(6144, {.chunks = 2, .tokens = 20, .bytes = 2000});
  a.hot_prefixes = {{.space = SpaceOf(1), .key = {}, .parent = {}, .tokens = 256, .per_second = 2, .hit_ratio = 0.5}};
  nodes_.Set("a", a);
  nodes_.Set("b", Unavailable("away"));
  collector_->Round();
  const nlohmann::json overview = GetJson("/api/v1/overview");
  EXPECT_EQ(overview["cluster"], "test");
  EXPECT_EQ(overview["nodes_total"], 2);
  EXPECT_EQ(overview["nodes_answered"], 1);
  EXPECT_EQ(overview["nodes_stale"], 1);
  EXPECT_DOUBLE_EQ(overview["total"]["hit_ratio"]["tokens"], 0.6);
  EXPECT_DOUBLE_EQ(overview["total"]["missed"]["never_stored"]["tokens"], 40);
  EXPECT_EQ(overview["tiers"]["memory"]["budget_bytes"], 4000);
  EXPECT_EQ(overview["nodes"][0]["load"]["busy_ratio"], 0.25);
  EXPECT_EQ(overview["nodes"][1]["error"], "away");
  EXPECT_EQ(overview["spaces"][0]["space"], SpaceOf(1).ToHex());
  EXPECT_TRUE(overview["spaces"][0]["has_history"]);
  EXPECT_EQ(overview["hot_prefixes"][0]["tokens"], 256);
  const nlohmann::json& curve = overview["curve"];
  EXPECT_EQ(curve["here_bytes"], 4000);
  EXPECT_NEAR(curve["what_if"][1]["hit_ratio"]["tokens"].get<double>(), 0.5, 0.01);
  EXPECT_NEAR(curve["what_if"][2]["hit_ratio"]["tokens"].get<double>(), 0.7, 0.01);  // with twice the memory
  EXPECT_GT(curve["points"].size(), 0u);
}

TEST_F(WebServerTest, TheHistoryIsOfTheRangeAndSpaceThatIsAskedFor) {
  nodes_.Set("a", SnapshotOf({.tokens = 100, .missed = 40}));
  collector_->Round();
  for (const std::string& query :
       {std::string("?range=600&points=60"), std::string(), "?range=86400&space=" + SpaceOf(1).ToHex()}) {
    const nlohmann::json history = GetJson("/api/v1/history" + query);
    EXPECT_NEAR(history["total"]["asked"]["tokens"].get<double>(), 100, 1e-6) << query;
    EXPECT_GE(history["points"].size(), 1u);
  }
}

TEST_F(WebServerTest, BadParametersAreNamed) {
  const auto error = [this](const std::string& query, int status = 400) {
    return GetJson("/api/v1/history" + query, status)["error"].get<std::string>();
  };
  EXPECT_THAT(error("?range=x"), HasSubstr("range: 'x'"));
  EXPECT_THAT(error("?range=-1"), HasSubstr("range"));
  EXPECT_THAT(error("?range=0"), HasSubstr("range"));
  EXPECT_THAT(error("?range=99999999999999999999"), HasSubstr("range"));
  EXPECT_THAT(error("?range=6000000"), HasSubstr("range"));
  EXPECT_THAT(error("?points=0"), HasSubstr("points"));
  EXPECT_THAT(error("?points=100000"), HasSubstr("points"));
  EXPECT_THAT(error("?space=zz"), HasSubstr("space"));
  EXPECT_THAT(error("?space=" + SpaceOf(9).ToHex(), 404), HasSubstr("space"));
}

TEST_F(WebServerTest, WhatPeersWriteStaysText) {
  nodes_.Set("a", absl::UnavailableError("</script><script>alert(1)</script> \xff \"quoted\""));
  collector_->Round();
  const nlohmann::json overview = GetJson("/api/v1/overview");
  EXPECT_THAT(overview["nodes"][0]["error"].get<std::string>(),
              AllOf(HasSubstr("</script>"), HasSubstr("\"quoted\""), HasSubstr("\xef\xbf\xbd")));
}

TEST_F(WebServerTest, APortThatIsInUseIsNamed) {
  const absl::Status status = WebServer::Start({.listen = web_->endpoint()}, *collector_, nullptr).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(web_->endpoint().ToString()));
}

TEST_F(WebServerTest, StopsWhileConnectionsAreOpen) {
  httplib::Client idle("127.0.0.1", web_->endpoint().port);
  idle.set_keep_alive(true);
  EXPECT_EQ(idle.Get("/")->status, 200);
  web_->Stop();
  EXPECT_FALSE(client_->Get("/"));
}

}  // namespace
}  // namespace kdn
