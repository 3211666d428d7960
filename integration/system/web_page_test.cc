// The web page of a real cluster in a real browser: web_page_test.py drives the browser, this makes the cluster and its
// traffic.
//
// With KDN_SCREENSHOTS=DIRECTORY it takes pictures there, after two minutes of traffic that are worth looking at.
#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "integration/system/cluster_fixture.h"
#include "kdn-client/cluster/cluster_usage.h"
#include "kdn-client/usage/usage_reporter.h"

namespace kdn {
namespace {

class WebPageTest : public ClusterFixture {
 protected:
  static std::string Directory() {
    const char* directory = std::getenv("KDN_SCREENSHOTS");
    return directory == nullptr ? "" : directory;
  }

  // The third line of the port file.
  std::string WebAddress() const {
    std::ifstream ports(placements_[0].directory / "ports");
    std::string grpc;
    std::string metrics;
    std::string web;
    ports >> grpc >> metrics >> web;
    return web;
  }

  // Stores some documents, and asks for them again and again, the first ones most often, and for some that nobody has.
  void Ask(Client& client, uint64_t first, int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (uint64_t i = 0; i < kDocuments; ++i) {
        if (round > 0 && static_cast<uint64_t>(round) % (1 + i / 3) != 0) continue;
        const Document document(first + i);
        if (document.Fetch(client, absl::Seconds(5)) != Document::Outcome::kWhole) {
          EXPECT_TRUE(document.Store(client, Ack::kDurable, absl::Seconds(10)));
        }
      }
      (void)Document(1'000'000 + first + static_cast<uint64_t>(round)).Fetch(client, absl::Seconds(5));
    }
  }

  static constexpr uint64_t kDocuments = 24;
};

TEST_F(WebPageTest, ShowsALiveClusterWithoutErrors) {
  ASSERT_NO_FATAL_FAILURE(StartPlacements(1, {"--web-listen", "127.0.0.1:0", "--analytics-interval", "500ms"}));
  ASSERT_NO_FATAL_FAILURE(StartNodes(3, {"--prefill-rate", "2000", "--memory-bytes", "1MiB"}));
  AwaitSettled(3);
  const std::string web = WebAddress();
  ASSERT_FALSE(web.empty());
  const std::unique_ptr<Client> client = NewDocumentClient(NewTransport());
  Ask(*client, 0, 3);
  const std::shared_ptr<TopologySource> topology = FollowTopology(Placement());
  ASSERT_NE(topology->AwaitNewer(0, absl::Now() + absl::Seconds(30)), nullptr);
  const auto usage =
      UsageReporter::Start({.space = Document::Space(), .tenant = "team blue"}, ClusterUsageSink(topology));
  ASSERT_TRUE(usage.ok()) << usage.status();
  (*usage)->Blended({.prompts = 12,
                     .segments = 60,
                     .discovered_segments = 20,
                     .prompt_tokens = 24'000,
                     .exact_tokens = 4'000,
                     .moved_tokens = 18'000,
                     .recomputed_tokens = 2'600,
                     .fresh_tokens = 2'000,
                     .late_tokens = 500,
                     .computed_layer_tokens = 180'000,
                     .full_layer_tokens = 640'000});
  (*usage)->Refused(BlendRefusal::kNotFaster);
  ASSERT_TRUE((*usage)->Flush(absl::Seconds(60))) << (*usage)->counts().last_failure;
  if (!Directory().empty()) {
    const absl::Time end = absl::Now() + absl::Minutes(2);
    for (uint64_t batch = 1; absl::Now() < end; ++batch) {
      Ask(*client, 8 * (batch % 5), 2 + static_cast<int>(batch % 4));
      absl::SleepFor(absl::Milliseconds(300 * (batch % 7)));
    }
  }

  const std::filesystem::path log = directory_.path() / "browser.log";
  const std::filesystem::path loaded = directory_.path() / "loaded";
  const std::filesystem::path more = directory_.path() / "more";
  std::vector<std::string> argv = {KDN_PYTHON,      KDN_WEB_PAGE_TEST_PY,
                                   "--url",         "http://" + web + "/",
                                   "--metrics",     "http://" + placements_[0].metrics_address + "/metrics",
                                   "--loaded-file", loaded.string(),
                                   "--more-file",   more.string()};
  if (!Directory().empty()) argv.insert(argv.end(), {"--screenshots", Directory()});
  absl::StatusOr<ChildProcess> browser = ChildProcess::Start(argv, log.string());
  ASSERT_TRUE(browser.ok()) << browser.status();
  const auto log_text = [&log] {
    std::ifstream in(log);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const absl::StatusOr<std::string> ready = WaitForFile(loaded, absl::Seconds(40), *browser);
  ASSERT_TRUE(ready.ok()) << ready.status() << "\n" << log_text();
  Ask(*client, 100, 24);  // while the page is open; of which enough are hits that the sample of hot prefixes has some
  std::ofstream(more) << "more\n";
  const absl::StatusOr<int> code = browser->Wait(absl::Seconds(50));
  ASSERT_TRUE(code.ok()) << code.status() << "\n" << log_text();
  EXPECT_EQ(*code, 0) << log_text();
}

}  // namespace
}  // namespace kdn
