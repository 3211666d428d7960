// A node behind a link that is slow, broken or gone, and kdn-link as a program.

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "integration/link/link_proxy.h"
#include "integration/system/node_fixture.h"

namespace kdn {
namespace {

constexpr uint32_t kChunk = 256;
constexpr uint32_t kChunks = 16;  // 4 MiB

class NodeLinkTest : public NodeFixture {
 protected:
  void StartLink(const LinkOptions& options) {
    absl::StatusOr<Endpoint> node = ParseEndpoint(target());
    ASSERT_TRUE(node.ok()) << node.status();
    absl::StatusOr<std::unique_ptr<LinkProxy>> link = LinkProxy::Start(*node, options);
    ASSERT_TRUE(link.ok()) << link.status();
    link_ = *std::move(link);
  }

  static std::unique_ptr<Client> ClientOf(const std::string& address) {
    absl::StatusOr<std::unique_ptr<Client>> client =
        Client::Create(SmallSpace(), MakeRemoteTransport(address, {.shared_memory = false}));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  void StoreAll(Client& client) {
    const PrefixHit hit = client.LookupPrefix(tokens_, {.deadline = absl::Seconds(30)});
    EXPECT_EQ(hit.stopped_by.reason, MissReason::kNotFound) << hit.stopped_by.detail;
    absl::StatusOr<StoreReport> report = client.Store(hit.chunks, stored_.view(), {.deadline = absl::Seconds(60)});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->Stored(), kChunks);
  }
  void ExpectAllFetched(Client& client) {
    const PrefixHit hit = client.LookupPrefix(tokens_, {.deadline = absl::Seconds(30)});
    EXPECT_EQ(hit.hits, kChunks) << hit.stopped_by.detail;
    const PromptMemory fetched(kChunks * kChunk);
    absl::StatusOr<FetchReport> report = client.Fetch(hit.HitChunks(), fetched.view(), {.deadline = absl::Seconds(60)});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->AllReady());
    EXPECT_EQ(fetched.Bytes(0, kChunks * kChunk), stored_.Bytes(0, kChunks * kChunk));
  }

  const std::vector<Token> tokens_ = MakeTokens(kChunks * kChunk, 1);
  const PromptMemory stored_{kChunks * kChunk, 2};
  std::unique_ptr<LinkProxy> link_;
};

TEST_F(NodeLinkTest, StoresAndFetchesOverASlowLossyLink) {
  StartNode();
  StartLink({.up_bits_per_second = 200'000'000,
             .down_bits_per_second = 500'000'000,
             .latency = absl::Milliseconds(3),
             .jitter = absl::Milliseconds(1),
             .loss = 0.001});
  std::unique_ptr<Client> client = ClientOf(link_->endpoint().ToString());
  StoreAll(*client);
  ExpectAllFetched(*client);
  const LinkStats stats = link_->Stats();
  EXPECT_GE(stats.bytes_up, uint64_t{4} << 20);
  EXPECT_GE(stats.bytes_down, uint64_t{4} << 20);
  client.reset();  // or the node waits for it to hang up
  StopNode();
}

TEST_F(NodeLinkTest, StalledLinkIsAMissAtTheDeadlineAndWorksAgainAfterwards) {
  StartNode();
  StartLink({});
  std::unique_ptr<Client> client = ClientOf(link_->endpoint().ToString());
  StoreAll(*client);
  link_->Stall();
  const PrefixHit hit = client->LookupPrefix(tokens_, {.deadline = absl::Milliseconds(200)});
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_EQ(hit.stopped_by.reason, MissReason::kDeadline);
  link_->Resume();
  ExpectAllFetched(*client);
  client.reset();
  StopNode();
}

TEST_F(NodeLinkTest, CutLinkIsAMiss) {
  StartNode();
  StartLink({});
  std::unique_ptr<Client> client = ClientOf(link_->endpoint().ToString());
  StoreAll(*client);
  link_->Cut();
  const PrefixHit hit = client->LookupPrefix(tokens_, {.deadline = absl::Seconds(5)});
  EXPECT_EQ(hit.hits, 0u);
  EXPECT_THAT(hit.stopped_by.reason, testing::AnyOf(MissReason::kUnreachable, MissReason::kDeadline));
  StopNode();
}

TEST_F(NodeLinkTest, ProgramCarriesANodeAndEndsOnSigterm) {
  StartNode();
  const std::filesystem::path port_file = directory_.path() / "link-port";
  const std::filesystem::path log = directory_.path() / "link.log";
  absl::StatusOr<ChildProcess> program =
      ChildProcess::Start({KDN_LINK_PATH, "--upstream", target(), "--bandwidth", "1Gbit", "--latency", "1ms", "--loss",
                           "0.1%", "--port-file", port_file.string()},
                          log.string());
  ASSERT_TRUE(program.ok()) << program.status();
  absl::StatusOr<std::string> address = WaitForFile(port_file, absl::Seconds(20), *program);
  ASSERT_TRUE(address.ok()) << address.status();
  address->pop_back();
  {
    const std::unique_ptr<Client> client = ClientOf(*address);
    StoreAll(*client);
    ExpectAllFetched(*client);
  }
  EXPECT_EQ(program->Stop(absl::Seconds(20)), 0);
  std::ostringstream printed;
  printed << std::ifstream(log).rdbuf();
  EXPECT_THAT(printed.str(), testing::StartsWith(*address + "\n"));
  StopNode();
}

TEST_F(NodeLinkTest, ProgramRefusesBadFlagsInOneLine) {
  const std::filesystem::path log = directory_.path() / "link.log";
  absl::StatusOr<ChildProcess> program =
      ChildProcess::Start({KDN_LINK_PATH, "--upstream", "127.0.0.1:1", "--loss", "lots"}, log.string());
  ASSERT_TRUE(program.ok()) << program.status();
  absl::StatusOr<int> exit_code = program->Wait(absl::Seconds(20));
  ASSERT_TRUE(exit_code.ok()) << exit_code.status();
  EXPECT_EQ(*exit_code, 2);
  std::ostringstream printed;
  printed << std::ifstream(log).rdbuf();
  EXPECT_EQ(printed.str(),
            "kdn-link: --loss: 'lots' is not a share; give a number and %, as in 0.1%; see kdn-link --help\n");
}

}  // namespace
}  // namespace kdn
