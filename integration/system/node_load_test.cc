// Many clients on one node: what they cost it in memory, and how it refuses what is too much.
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "integration/system/node_fixture.h"
#include "kdn-client/bulk/bulk_peer.h"
#include "kdn/v1/bulk.pb.h"
#include "proto/wire/bulk_frame.h"

namespace kdn {
namespace {

constexpr uint32_t kChunk = 256;
constexpr uint32_t kChunks = 64;  // 16 MiB, four times what a connection may hold
constexpr int kIdleClients = 1000;
constexpr int kBusyClients = 200;
constexpr absl::Duration kPlenty = absl::Seconds(60);

// docs/operations.md promises these.
constexpr uint64_t kIdleBytes = uint64_t{4} << 10;
constexpr uint64_t kBusyBytes = uint64_t{8} << 20;
// What allocators and thread stacks may add, whatever the number of clients.
constexpr uint64_t kSlackBytes = uint64_t{8} << 20;

class NodeLoadTest : public NodeFixture {
 protected:
  static void SetUpTestSuite() {
    rlimit files = {};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }

  // Memory of the node that is its own, without what the arena holds.
  uint64_t PrivateBytes() const {
    std::ifstream status("/proc/" + std::to_string(node_->id()) + "/status");
    std::string word;
    while (status >> word) {
      uint64_t kib = 0;
      if (word == "RssAnon:" && status >> kib) return kib << 10;
    }
    ADD_FAILURE() << "no RssAnon in the node's status";
    return 0;
  }

  void StoreAll() {
    const std::unique_ptr<Client> client = NewClient();
    hit_ = client->LookupPrefix(tokens_, {.deadline = kPlenty});
    const auto stored = client->Store(hit_.chunks, stored_.view(), {.deadline = kPlenty, .codec = "raw"});
    ASSERT_TRUE(stored.ok()) << stored.status();
    ASSERT_EQ(stored->Stored(), kChunks);
  }

  BulkPeer::Loan Connect() {
    auto loan = peer_->Take(absl::Now() + kPlenty);
    EXPECT_TRUE(loan.ok()) << loan.status();
    return *std::move(loan);
  }

  // Asks for all chunks, `times` over, by their first `heads` heads (0: all), and reads nothing.
  void AskForAll(BulkSocket& socket, int times = 1, uint32_t heads = 0) {
    v1::BulkCall call;
    call.set_timeout_us(static_cast<uint64_t>(absl::ToInt64Microseconds(kPlenty)));
    v1::FetchRequest& fetch = *call.mutable_fetch();
    std::string keys;
    for (int i = 0; i < times; ++i) {
      for (const ChunkRef& chunk : hit_.chunks) keys += AsStringView(chunk.key.span());
    }
    fetch.set_keys(keys);
    if (heads != 0) fetch.mutable_heads()->set_end(heads);
    fetch.set_space_id(std::string(AsStringView(NewClient()->space_id().span())));
    const absl::Status sent =
        socket.SendFrame(wire::EncodeBulkFrame(wire::BulkType::kCall, call), absl::Now() + kPlenty);
    ASSERT_TRUE(sent.ok()) << sent;
  }

  void Start(const std::vector<std::string>& flags) {
    StartNode(flags);
    peer_.emplace(target(), BulkPeer::Options{.shared_memory = false});
    StoreAll();
  }

  const std::vector<Token> tokens_ = MakeTokens(kChunks * kChunk, 1);
  const PromptMemory stored_{kChunks * kChunk, 2};
  PrefixHit hit_;
  std::optional<BulkPeer> peer_;
};

TEST_F(NodeLoadTest, AThousandIdleAndTwoHundredBusyClientsFitTheirBound) {
  Start({"--memory-bytes", "256MiB"});
  const uint64_t before = PrivateBytes();

  std::vector<BulkPeer::Loan> idle;
  for (int i = 0; i < kIdleClients; ++i) idle.push_back(Connect());
  const uint64_t with_idle = PrivateBytes();
  EXPECT_LE(with_idle, before + kIdleClients * kIdleBytes + kSlackBytes);

  std::atomic<int> whole = 0;
  std::atomic<uint64_t> most = 0;
  std::vector<std::thread> busy;
  for (int i = 0; i < kBusyClients; ++i) {
    busy.emplace_back([&] {
      const auto transport = MakeRemoteTransport(target(), {.shared_memory = false});
      const auto client = Client::Create(SmallSpace(), transport);
      const PromptMemory fetched(kChunks * kChunk);
      const auto report = (*client)->Fetch(hit_.chunks, fetched.view(), {.deadline = kPlenty});
      if (report.ok() && report->AllReady() && fetched.Bytes(0, 1) == stored_.Bytes(0, 1)) ++whole;
      most = std::max(most.load(), PrivateBytes());
    });
  }
  for (std::thread& client : busy) client.join();
  EXPECT_EQ(whole, kBusyClients);
  EXPECT_LE(most, before + kIdleClients * kIdleBytes + kBusyClients * kBusyBytes + kSlackBytes);
  idle.clear();
  peer_.reset();
  StopNode();
}

// What is cut out of slabs for one client belongs to no tier, so that whatever the node read ahead would be seen in its
// memory: with no bound, 64 MiB for each of them.
TEST_F(NodeLoadTest, WhoReadsNothingHoldsABatchAndNoMore) {
  constexpr int kSlowClients = 20;
  Start({"--memory-bytes", "256MiB", "--shared-memory", "off"});
  const uint64_t before = PrivateBytes();
  std::vector<BulkPeer::Loan> slow;
  for (int i = 0; i < kSlowClients; ++i) {
    slow.push_back(Connect());
    AskForAll(*slow.back().socket, /*times=*/8, /*heads=*/2);
  }
  // Each of them is being served, and others beside them.
  for (BulkPeer::Loan& loan : slow) ASSERT_TRUE(loan.socket->ReadFrame(absl::Now() + kPlenty).ok());
  const PromptMemory fetched(kChunks * kChunk);
  const auto report = NewClient()->Fetch(hit_.chunks, fetched.view(), {.deadline = kPlenty});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->AllReady());
  // Until the node has gone as far as it will.
  uint64_t held = 0;
  for (int unchanged = 0; unchanged < 10; ++unchanged) {
    if (const uint64_t now = PrivateBytes(); now > held) {
      held = now;
      unchanged = 0;
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_GT(held, before + kSlowClients * kBusyBytes / 8) << "nothing was cut, so nothing is shown";
  EXPECT_LE(held, before + kSlowClients * kBusyBytes + kSlackBytes);
  slow.clear();
  peer_.reset();
  StopNode();
}

TEST_F(NodeLoadTest, TooManyFetchesAreRefusedAtOnceAndServedOnceThereIsRoom) {
  Start({"--memory-bytes", "256MiB", "--max-fetch-bytes", "64MiB"});
  std::vector<BulkPeer::Loan> slow;
  for (int i = 0; i < 8; ++i) {  // 8 MiB each
    slow.push_back(Connect());
    AskForAll(*slow.back().socket);
  }
  // The last of them is being served once its first frame is here.
  for (BulkPeer::Loan& loan : slow) ASSERT_TRUE(loan.socket->ReadFrame(absl::Now() + kPlenty).ok());

  const std::unique_ptr<Client> client = NewClient();
  const PromptMemory fetched(kChunks * kChunk);
  const absl::Time begin = absl::Now();
  auto report = client->Fetch(hit_.chunks, fetched.view(), {.deadline = kPlenty});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->chunks[0].miss.reason, MissReason::kRefused) << report->chunks[0].miss.detail;
  EXPECT_LT(absl::Now() - begin, kPlenty / 2) << "a refusal must not wait";

  // The client leaves the node alone for a moment, and says so.
  report = client->Fetch(hit_.chunks, fetched.view(), {.deadline = kPlenty});
  EXPECT_EQ(report->chunks[0].miss.reason, MissReason::kRefused);

  slow.clear();
  while (!report->AllReady() && absl::Now() < begin + kPlenty) {
    report = client->Fetch(hit_.chunks, fetched.view(), {.deadline = kPlenty});
  }
  EXPECT_TRUE(report->AllReady());
  EXPECT_EQ(fetched.Bytes(0, kChunks * kChunk), stored_.Bytes(0, kChunks * kChunk));
  peer_.reset();
  StopNode();
}

}  // namespace
}  // namespace kdn
