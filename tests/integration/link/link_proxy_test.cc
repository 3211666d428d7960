#include "integration/link/link_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kdn {
namespace {

constexpr uint64_t kProxyMegabit = 1'000'000;

// A TCP socket with blocking calls.
class Peer {
 public:
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {}

  static Peer ConnectTo(const Endpoint& endpoint) {
    Peer peer{UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
    EXPECT_EQ(peer.Connect(endpoint), 0);
    return peer;
  }
  // 0, or errno.
  int Connect(const Endpoint& endpoint) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(endpoint.port);
    inet_pton(AF_INET, endpoint.host.c_str(), &address.sin_addr);
    return connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  }

  // False when the connection broke.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // In pieces of random sizes, and then the end.
  void SendInPieces(std::string_view bytes, uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!bytes.empty()) {
      const size_t piece = std::min<size_t>(bytes.size(), 1 + random() % (random() % 2 == 0 ? 100 : 100'000));
      ASSERT_TRUE(Send(bytes.substr(0, piece)));
      bytes.remove_prefix(piece);
    }
    End();
  }
  void End() { shutdown(fd_.get(), SHUT_WR); }

  std::string Receive(size_t bytes) {
    std::string received(bytes, '\0');
    EXPECT_EQ(recv(fd_.get(), received.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
    return received;
  }
  std::string ReceiveToEnd(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string received;
    std::string piece(100'000, '\0');
    while (true) {
      const ssize_t got = recv(fd_.get(), piece.data(), 1 + random() % piece.size(), 0);
      EXPECT_GE(got, 0) << std::strerror(errno);
      if (got <= 0) return received;
      received.append(piece, 0, static_cast<size_t>(got));
    }
  }
  // Waits for the connection to break. True for a reset, false for an end.
  bool IsReset() {
    char byte;
    const ssize_t got = recv(fd_.get(), &byte, 1, 0);
    EXPECT_LE(got, 0);
    return got < 0 && errno == ECONNRESET;
  }
  bool HasNothing() {
    char byte;
    return recv(fd_.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
  }
  void ResetNow() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    fd_.Close();
  }

 private:
  UniqueFd fd_;
};

class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(fd_.get(), generic, size), 0);
    EXPECT_EQ(listen(fd_.get(), SOMAXCONN), 0);
    EXPECT_EQ(getsockname(fd_.get(), generic, &size), 0);
    endpoint_ = {.host = "127.0.0.1", .port = ntohs(address.sin_port)};
  }

  const Endpoint& endpoint() const { return endpoint_; }
  Peer Accept() { return Peer(UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC))); }
  void Close() { fd_.Close(); }

 private:
  UniqueFd fd_;
  Endpoint endpoint_;
};

std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  std::ranges::generate(bytes, [&] { return static_cast<char>(random()); });
  return bytes;
}

class LinkProxyTest : public testing::Test {
 protected:
  void Start(const LinkOptions& options) {
    absl::StatusOr<std::unique_ptr<LinkProxy>> link = LinkProxy::Start(upstream_.endpoint(), options);
    ASSERT_TRUE(link.ok()) << link.status();
    link_ = *std::move(link);
  }
  // A client and what the upstream accepted for it.
  std::pair<Peer, Peer> Connect() {
    Peer client = Peer::ConnectTo(link_->endpoint());
    return {std::move(client), upstream_.Accept()};
  }
  // Both ways at once, each to its end.
  void ExpectExact(Peer& client, Peer& server, size_t bytes, uint64_t seed) {
    const std::string up = RandomBytes(bytes, seed);
    const std::string down = RandomBytes(bytes, seed + 1);
    std::string got_up;
    std::string got_down;
    std::thread threads[] = {std::thread([&] { client.SendInPieces(up, seed); }),
                             std::thread([&] { server.SendInPieces(down, seed + 1); }),
                             std::thread([&] { got_up = server.ReceiveToEnd(seed + 2); }),
                             std::thread([&] { got_down = client.ReceiveToEnd(seed + 3); })};
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(got_up == up);
    EXPECT_TRUE(got_down == down);
  }
  void WaitForNoConnections() {
    while (link_->Stats().open_connections > 0) std::this_thread::yield();
  }

  Listener upstream_;
  std::unique_ptr<LinkProxy> link_;
};

struct Setting {
  const char* name;
  LinkOptions options;
  size_t bytes;
};

class LinkProxySettingTest : public LinkProxyTest, public testing::WithParamInterface<Setting> {};

TEST_P(LinkProxySettingTest, PassesEveryByteBothWays) {
  const size_t bytes = GetParam().bytes;
  Start(GetParam().options);
  auto [client, server] = Connect();
  ExpectExact(client, server, bytes, 1);
  WaitForNoConnections();
  const LinkStats stats = link_->Stats();
  EXPECT_EQ(stats.bytes_up, bytes);
  EXPECT_EQ(stats.bytes_down, bytes);
  EXPECT_EQ(stats.bytes_held, 0u);
  EXPECT_EQ(stats.connections, 1u);
}

INSTANTIATE_TEST_SUITE_P(
    Settings, LinkProxySettingTest,
    testing::Values(
        Setting{.name = "Unlimited", .options = {}, .bytes = 32 << 20},
        Setting{.name = "Slow",
                .options = {.up_bits_per_second = 10 * kProxyMegabit, .down_bits_per_second = 20 * kProxyMegabit},
                .bytes = 200'000},
        Setting{.name = "Gigabit",
                .options = {.up_bits_per_second = 1000 * kProxyMegabit, .down_bits_per_second = 1000 * kProxyMegabit},
                .bytes = 8 << 20},
        Setting{
            .name = "HundredGigabit",
            .options = {.up_bits_per_second = 100'000 * kProxyMegabit, .down_bits_per_second = 100'000 * kProxyMegabit},
            .bytes = 16 << 20},
        Setting{.name = "Far", .options = {.latency = absl::Milliseconds(20)}, .bytes = 8 << 20},
        Setting{.name = "Jittery",
                .options = {.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(5)},
                .bytes = 4 << 20},
        Setting{
            .name = "Lossy",
            .options = {.down_bits_per_second = 1000 * kProxyMegabit, .latency = absl::Milliseconds(1), .loss = 0.005},
            .bytes = 2 << 20},
        Setting{.name = "SmallQueueAndWindow",
                .options = {.latency = absl::Microseconds(100), .queue_bytes = 64 << 10, .window_bytes = 64 << 10},
                .bytes = 8 << 20},
        Setting{.name = "EverythingAtOnce",
                .options = {.up_bits_per_second = 300 * kProxyMegabit,
                            .down_bits_per_second = 5000 * kProxyMegabit,
                            .latency = absl::Milliseconds(2),
                            .jitter = absl::Milliseconds(1),
                            .loss = 0.001,
                            .queue_bytes = 100'000,
                            .window_bytes = 500'000},
                .bytes = 3'000'001}),
    [](const auto& setting) { return setting.param.name; });

// Bounds from below alone: a busy machine makes a link slower, never faster.
TEST_F(LinkProxyTest, IsNoFasterThanItsOptionsSay) {
  Start({.up_bits_per_second = 100 * kProxyMegabit, .latency = absl::Milliseconds(10)});
  auto [client, server] = Connect();
  const std::string bytes = RandomBytes(500'000, 1);  // 40 ms
  const auto begin = std::chrono::steady_clock::now();
  client.SendInPieces(bytes, 1);
  EXPECT_TRUE(server.ReceiveToEnd(2) == bytes);
  const auto up = std::chrono::steady_clock::now();
  EXPECT_GE(up - begin, std::chrono::milliseconds(50));
  server.SendInPieces("answer", 3);
  EXPECT_EQ(client.ReceiveToEnd(4), "answer");
  EXPECT_GE(std::chrono::steady_clock::now() - up, std::chrono::milliseconds(10));
}

TEST_F(LinkProxyTest, HalfClosedConnectionStillAnswers) {
  Start({.latency = absl::Milliseconds(2)});
  auto [client, server] = Connect();
  client.SendInPieces("question", 1);
  EXPECT_EQ(server.ReceiveToEnd(2), "question");
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(server.Send("answer"));
    EXPECT_EQ(client.Receive(6), "answer");
  }
  EXPECT_EQ(link_->Stats().open_connections, 1u);
  server.SendInPieces("the end", 3);
  EXPECT_EQ(client.ReceiveToEnd(4), "the end");
  WaitForNoConnections();
}

TEST_F(LinkProxyTest, ConnectionThatSaysNothingEndsAsWell) {
  Start({.latency = absl::Milliseconds(1)});
  auto [client, server] = Connect();
  server.End();
  EXPECT_EQ(client.ReceiveToEnd(1), "");
  client.End();
  EXPECT_EQ(server.ReceiveToEnd(2), "");
  WaitForNoConnections();
}

TEST_F(LinkProxyTest, ResetByOnePeerReachesTheOther) {
  Start({});
  {
    auto [client, server] = Connect();
    client.ResetNow();
    EXPECT_TRUE(server.IsReset());
  }
  auto [client, server] = Connect();
  server.ResetNow();
  EXPECT_TRUE(client.IsReset());
  WaitForNoConnections();
}

TEST_F(LinkProxyTest, CutResetsEveryConnectionAndRefusesNewOnes) {
  Start({.latency = absl::Milliseconds(1)});
  auto [idle_client, idle_server] = Connect();
  auto [busy_client, busy_server] = Connect();
  std::thread sender([&client = busy_client] {
    const std::string bytes(100'000, 'x');
    while (client.Send(bytes)) continue;
  });
  busy_server.Receive(1'000'000);
  link_->Cut();
  sender.join();
  EXPECT_EQ(link_->Stats().open_connections, 0u);
  EXPECT_EQ(link_->Stats().bytes_held, 0u);
  EXPECT_TRUE(idle_client.IsReset());
  EXPECT_TRUE(idle_server.IsReset());
  Peer late{UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  EXPECT_EQ(late.Connect(link_->endpoint()), ECONNREFUSED);
  link_->Cut();
  link_->Stall();
  link_->Resume();
  EXPECT_TRUE(link_->SetOptions({}).ok());
}

TEST_F(LinkProxyTest, DestructorResetsWhatIsOpen) {
  Start({});
  auto [client, server] = Connect();
  ASSERT_TRUE(client.Send("x"));
  server.Receive(1);
  link_.reset();
  EXPECT_TRUE(client.IsReset());
  EXPECT_TRUE(server.IsReset());
}

TEST_F(LinkProxyTest, NothingMovesWhileStalled) {
  Start({});
  auto [client, server] = Connect();
  ASSERT_TRUE(client.Send("before"));
  EXPECT_EQ(server.Receive(6), "before");

  link_->Stall();
  ASSERT_TRUE(client.Send("during"));
  ASSERT_TRUE(server.Send("DURING"));
  Peer late_client = Peer::ConnectTo(link_->endpoint());  // the system accepts it; the link does not
  for (int i = 0; i < 100; ++i) {                         // each passes through the loop
    const LinkStats stats = link_->Stats();
    EXPECT_EQ(stats.bytes_up, 6u);
    EXPECT_EQ(stats.bytes_down, 0u);
    EXPECT_EQ(stats.bytes_held, 0u);
    EXPECT_EQ(stats.connections, 1u);
    EXPECT_EQ(stats.open_connections, 1u);
  }
  EXPECT_TRUE(server.HasNothing());
  EXPECT_TRUE(client.HasNothing());

  link_->Resume();
  EXPECT_EQ(server.Receive(6), "during");
  EXPECT_EQ(client.Receive(6), "DURING");
  Peer late_server = upstream_.Accept();
  ExpectExact(late_client, late_server, 100'000, 5);
  ExpectExact(client, server, 100'000, 6);
}

TEST_F(LinkProxyTest, StalledInTheMiddleOfAStreamLosesNothing) {
  Start({.latency = absl::Milliseconds(1)});
  auto [client, server] = Connect();
  const std::string bytes = RandomBytes(16 << 20, 1);
  std::thread sender([&client = client, &bytes] { client.SendInPieces(bytes, 1); });
  std::string received;
  for (int i = 0; i < 15; ++i) {
    received += server.Receive(1 << 20);
    link_->Stall();
    const LinkStats stats = link_->Stats();
    for (int j = 0; j < 10; ++j) EXPECT_EQ(link_->Stats().bytes_up, stats.bytes_up);
    link_->Resume();
  }
  received += server.ReceiveToEnd(2);
  sender.join();
  EXPECT_TRUE(received == bytes);
}

TEST_F(LinkProxyTest, OptionsChangeWhileBytesStream) {
  Start({});
  const std::vector<LinkOptions> settings = {
      {.up_bits_per_second = 400 * kProxyMegabit, .down_bits_per_second = 400 * kProxyMegabit},
      {.latency = absl::Milliseconds(3), .jitter = absl::Milliseconds(1)},
      {.up_bits_per_second = 2000 * kProxyMegabit, .queue_bytes = 64 << 10, .window_bytes = 64 << 10},
      {.latency = absl::Microseconds(500), .loss = 0.001},
      {},
  };
  auto [client, server] = Connect();
  std::atomic<bool> streaming = true;
  std::thread changer([&] {
    for (size_t i = 0; streaming; ++i) {
      EXPECT_TRUE(link_->SetOptions(settings[i % settings.size()]).ok());
      const uint64_t seen = link_->Stats().bytes_up;  // let some bytes pass under each
      while (streaming && link_->Stats().bytes_up < seen + 500'000) std::this_thread::yield();
    }
  });
  ExpectExact(client, server, 24 << 20, 1);
  streaming = false;
  changer.join();
}

TEST_F(LinkProxyTest, BadOptionsChangeNothing) {
  EXPECT_EQ(LinkProxy::Start(upstream_.endpoint(), {.loss = 0.6}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LinkProxy::Start({.host = "127.0.0.1", .port = 0}, {}).status().code(), absl::StatusCode::kInvalidArgument);
  Start({});
  const LinkOptions bad[] = {
      {.up_bits_per_second = 9'999'999},
      {.down_bits_per_second = 100'000'000'001},
      {.latency = absl::Seconds(-1)},
      {.latency = absl::InfiniteDuration()},
      {.jitter = absl::Seconds(11)},
      {.loss = -0.1},
      {.queue_bytes = 1000},
      {.window_bytes = size_t{2} << 30},
  };
  for (const LinkOptions& options : bad) {
    EXPECT_EQ(link_->SetOptions(options).code(), absl::StatusCode::kInvalidArgument);
  }
  auto [client, server] = Connect();
  ExpectExact(client, server, 100'000, 1);
}

TEST_F(LinkProxyTest, ManyConnectionsAtOnce) {
  constexpr size_t kConnections = 64;
  Start({.up_bits_per_second = 5000 * kProxyMegabit, .latency = absl::Milliseconds(1)});
  std::vector<std::pair<Peer, Peer>> pairs;
  for (size_t i = 0; i < kConnections; ++i) pairs.push_back(Connect());
  EXPECT_EQ(link_->Stats().open_connections, kConnections);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kConnections; ++i) {
    threads.emplace_back([&, i] { ExpectExact(pairs[i].first, pairs[i].second, 100'000, 10 * i); });
  }
  for (std::thread& thread : threads) thread.join();
  WaitForNoConnections();
  EXPECT_EQ(link_->Stats().bytes_up, kConnections * 100'000);
  EXPECT_EQ(link_->Stats().connections, kConnections);
}

// What bounds the wait is proven with a clock of the test's own in link_direction_test.cc.
TEST_F(LinkProxyTest, SmallRequestsGetThroughBesideAStreamWithoutEnd) {
  Start({.up_bits_per_second = 100 * kProxyMegabit});
  auto [bulk_client, bulk_server] = Connect();
  auto [client, server] = Connect();
  std::atomic<bool> enough = false;
  std::thread sender([&bulk = bulk_client, &enough] {
    const std::string bytes(100'000, 'x');
    while (!enough && bulk.Send(bytes)) continue;
    bulk.End();
  });
  std::thread receiver([&bulk = bulk_server] { bulk.ReceiveToEnd(1); });
  while (link_->Stats().bytes_held < LinkOptions().queue_bytes / 2) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(client.Send("request"));
    EXPECT_EQ(server.Receive(7), "request");
    ASSERT_TRUE(server.Send("answer"));
    EXPECT_EQ(client.Receive(6), "answer");
  }
  enough = true;
  sender.join();
  ASSERT_TRUE(link_->SetOptions({}).ok());
  receiver.join();
}

TEST_F(LinkProxyTest, PeerThatNeverReadsStopsItsSenderAndNobodyElse) {
  constexpr size_t kQueue = 256 << 10;
  constexpr size_t kWindow = 128 << 10;
  constexpr size_t kBound = kQueue + kWindow + (16 << 10);
  Start({.queue_bytes = kQueue, .window_bytes = kWindow});
  auto [stuck_client, stuck_server] = Connect();
  std::thread sender([&client = stuck_client] {
    const std::string bytes(1'000'000, 'x');
    while (client.Send(bytes)) continue;
  });
  while (link_->Stats().bytes_held < kQueue) std::this_thread::yield();
  for (uint64_t i = 0; i < 50; ++i) {
    auto [client, server] = Connect();
    ExpectExact(client, server, 100'000, i);
    while (link_->Stats().open_connections > 1) std::this_thread::yield();
    EXPECT_LE(link_->Stats().bytes_held, kBound);
  }
  stuck_server.ResetNow();
  sender.join();
  WaitForNoConnections();
}

TEST_F(LinkProxyTest, UpstreamThatIsNotThereClosesTheConnection) {
  Start({.latency = absl::Seconds(10)});
  upstream_.Close();
  Peer client = Peer::ConnectTo(link_->endpoint());
  EXPECT_TRUE(client.IsReset());
  EXPECT_EQ(link_->Stats().open_connections, 0u);
  EXPECT_EQ(link_->Stats().connections, 1u);
}

TEST_F(LinkProxyTest, MayBeCalledByManyThreads) {
  Start({});
  auto [client, server] = Connect();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 50; ++j) {
        link_->Stall();
        EXPECT_TRUE(link_->SetOptions({.seed = static_cast<uint64_t>(i)}).ok());
        EXPECT_EQ(link_->Stats().connections, 1u);
        link_->Resume();
      }
    });
  }
  ExpectExact(client, server, 4 << 20, 1);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace kdn
