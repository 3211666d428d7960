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
#include <vector>

#include "absl/time/clock.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kStartTime = absl::Seconds(10);
constexpr absl::Duration kRunTime = absl::Seconds(60);
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

absl::StatusOr<uint64_t> RedisPeer::Get(uint64_t key) {
  AppendGet(key);
  return Reply();
}

absl::StatusOr<uint64_t> RedisPeer::GetAll(uint64_t count, size_t in_flight) {
  return Pipeline(count, in_flight, [this](uint64_t key) { AppendGet(key); });
}

absl::Status RedisPeer::SetAll(uint64_t count, size_t in_flight,
                               const std::function<std::span<const uint8_t>(uint64_t key)>& value_of) {
  return Pipeline(count, in_flight, [&](uint64_t key) { AppendSet(key, value_of(key)); }).status();
}

void RedisPeer::AppendGet(uint64_t key) {
  redisAppendCommand(connection_.get(), "GET %llu", static_cast<unsigned long long>(key));
}

void RedisPeer::AppendSet(uint64_t key, std::span<const uint8_t> value) {
  const std::string name = std::to_string(key);
  const char* const words[] = {"SET", name.c_str(), reinterpret_cast<const char*>(value.data())};
  const size_t sizes[] = {3, name.size(), value.size()};
  redisAppendCommandArgv(connection_.get(), 3, const_cast<const char**>(words), sizes);
}

absl::StatusOr<uint64_t> RedisPeer::Pipeline(uint64_t count, size_t in_flight,
                                             const std::function<void(uint64_t key)>& append) {
  uint64_t sent = 0;
  uint64_t sum = 0;
  for (uint64_t answered = 0; answered < count; ++answered) {
    for (; sent < std::min(count, answered + in_flight); ++sent) append(sent);
    KDN_ASSIGN_OR_RETURN(const uint64_t reply, Reply());
    sum += reply;
  }
  return sum;
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

absl::StatusOr<Iperf3Peer> Iperf3Peer::Start(const ServerPlace& place) {
  KDN_ASSIGN_OR_RETURN(const uint16_t port, FreePort());
  const std::vector<std::string> serve = {"iperf3", "--server", "--bind", place.host, "--port", std::to_string(port)};
  KDN_ASSIGN_OR_RETURN(ChildProcess server, ChildProcess::Start(place.CommandLine(serve)));
  return Iperf3Peer(std::move(server), {.host = place.host, .port = port});
}

absl::StatusOr<double> Iperf3Peer::Receive(const Endpoint& address, uint64_t bytes) const {
  const TemporaryDirectory directory("kdn-iperf3-");
  const std::string output = directory.path() / "client.json";
  const std::vector<std::string> receive = {
      "iperf3",    "--client", address.host,          "--port", std::to_string(address.port),
      "--reverse", "--bytes",  std::to_string(bytes), "--json"};
  std::string error = "it gave none";
  for (const absl::Time deadline = absl::Now() + kStartTime; absl::Now() < deadline; absl::SleepFor(kPoll)) {
    std::filesystem::remove(output);
    KDN_ASSIGN_OR_RETURN(ChildProcess client, ChildProcess::Start(receive, output));
    KDN_ASSIGN_OR_RETURN(const int exit_code, client.Wait(kRunTime));
    std::ifstream file(output);
    const nlohmann::json result = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
    const nlohmann::json::json_pointer throughput("/end/sum_received/bits_per_second");
    if (exit_code == 0 && result.contains(throughput)) return result[throughput].get<double>() / 8e9;
    // The server does not listen yet, or still ends the run before.
    if (result.contains("error")) error = result["error"].dump();
  }
  return Unavailable("iperf3 gave no throughput from {}: {}", address.ToString(), error);
}

}  // namespace kdn::bench
