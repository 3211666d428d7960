#include "bench/network_peers.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kStartTime = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(10);

// A port that was free a moment ago; for programs that cannot choose one themselves.
absl::StatusOr<uint16_t> FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  const bool bound = fd >= 0 && bind(fd, generic, size) == 0 && getsockname(fd, generic, &size) == 0;
  if (fd >= 0) close(fd);
  if (!bound) return Unavailable("no free port on loopback");
  return ntohs(address.sin_port);
}

}  // namespace

void RedisPeer::Free::operator()(redisContext* context) const { redisFree(context); }

absl::StatusOr<RedisPeer> RedisPeer::Start() {
  KDN_ASSIGN_OR_RETURN(const uint16_t port, FreePort());
  KDN_ASSIGN_OR_RETURN(ChildProcess server,
                       ChildProcess::Start({"redis-server", "--bind", "127.0.0.1", "--port", std::to_string(port),
                                            "--save", "", "--appendonly", "no", "--daemonize", "no"}));
  for (const absl::Time deadline = absl::Now() + kStartTime; absl::Now() < deadline; absl::SleepFor(kPoll)) {
    if (!server.Running()) return Unavailable("redis-server ended at once; is port {} taken?", port);
    Connection connection(redisConnect("127.0.0.1", port));
    if (connection == nullptr || connection->err != 0) continue;
    RedisPeer peer(std::move(server), std::move(connection));
    KDN_RETURN_IF_ERROR(peer.Clear());
    return peer;
  }
  return Unavailable("redis-server does not listen on port {}", port);
}

absl::Status RedisPeer::Set(uint64_t key, std::span<const uint8_t> value) {
  redisAppendCommand(connection_.get(), "SET %llu %b", static_cast<unsigned long long>(key), value.data(),
                     value.size());
  return Reply().status();
}

absl::StatusOr<uint64_t> RedisPeer::Get(uint64_t key) {
  redisAppendCommand(connection_.get(), "GET %llu", static_cast<unsigned long long>(key));
  return Reply();
}

absl::StatusOr<uint64_t> RedisPeer::GetAll(uint64_t count, size_t in_flight) {
  uint64_t asked = 0;
  uint64_t bytes = 0;
  for (uint64_t answered = 0; answered < count; ++answered) {
    for (; asked < std::min(count, answered + in_flight); ++asked) {
      redisAppendCommand(connection_.get(), "GET %llu", static_cast<unsigned long long>(asked));
    }
    KDN_ASSIGN_OR_RETURN(const uint64_t size, Reply());
    bytes += size;
  }
  return bytes;
}

absl::Status RedisPeer::Clear() {
  redisAppendCommand(connection_.get(), "FLUSHALL");
  return Reply().status();
}

absl::StatusOr<uint64_t> RedisPeer::Reply() {
  void* untyped = nullptr;
  if (redisGetReply(connection_.get(), &untyped) != REDIS_OK) return Unavailable("redis: {}", connection_->errstr);
  const auto free_reply = [](redisReply* r) { freeReplyObject(r); };
  const std::unique_ptr<redisReply, decltype(free_reply)> reply(static_cast<redisReply*>(untyped), free_reply);
  switch (reply->type) {
    case REDIS_REPLY_STRING:
      return reply->len;
    case REDIS_REPLY_STATUS:
      return 0;
    case REDIS_REPLY_ERROR:
      return Unavailable("redis: {}", reply->str);
    default:
      return NotFound("redis: no such key");
  }
}

absl::StatusOr<double> RunIperf3(absl::Duration length) {
  const TemporaryDirectory directory("kdn-iperf3-");
  const std::string output = directory.path() / "client.json";
  KDN_ASSIGN_OR_RETURN(const uint16_t port, FreePort());
  const std::vector<std::string> serve = {"iperf3",    "--server", "--one-off",         "--bind",
                                          "127.0.0.1", "--port",   std::to_string(port)};
  KDN_ASSIGN_OR_RETURN(ChildProcess server, ChildProcess::Start(serve));
  const std::vector<std::string> send = {"iperf3",
                                         "--client",
                                         "127.0.0.1",
                                         "--port",
                                         std::to_string(port),
                                         "--time",
                                         std::to_string(absl::ToInt64Seconds(length)),
                                         "--json"};
  for (const absl::Time deadline = absl::Now() + kStartTime; absl::Now() < deadline; absl::SleepFor(kPoll)) {
    std::filesystem::remove(output);
    KDN_ASSIGN_OR_RETURN(ChildProcess client, ChildProcess::Start(send, output));
    KDN_ASSIGN_OR_RETURN(const int exit_code, client.Wait(length + kStartTime));
    std::ifstream file(output);
    const nlohmann::json result = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
    const nlohmann::json::json_pointer throughput("/end/sum_received/bits_per_second");
    if (exit_code != 0 || !result.contains(throughput)) continue;  // the server does not listen yet
    const double bits = result[throughput].get<double>();
    return bits / 8e9;
  }
  return Unavailable("iperf3 gave no throughput over port {}", port);
}

}  // namespace kdn::bench
