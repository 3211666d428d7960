// RedisPeer and Iperf3Peer: what others move over the network, as the peers of our own numbers.
//
//   KDN_ASSIGN_OR_RETURN(bench::RedisPeer redis, bench::RedisPeer::Start());
//   KDN_RETURN_IF_ERROR(redis.SetAll(8, 4, [&](uint64_t key) { return Value(key); }));
//   KDN_ASSIGN_OR_RETURN(uint64_t bytes, redis.Get(7));
//
// Thread-safety: one thread at a time, or they measure each other.
#ifndef KDN_BENCH_NETWORK_PEERS_H_
#define KDN_BENCH_NETWORK_PEERS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/server_place.h"
#include "integration/process/child_process.h"
#include "storage/base/endpoint.h"

struct redisContext;

namespace kdn::bench {

// Commands in flight at a time where they are pipelined.
inline constexpr size_t kRedisInFlight = 16;

// A redis-server of its own, without persistence, ended by the destructor, and one connection to it by hiredis.
class RedisPeer {
 public:
  // UNAVAILABLE when redis-server cannot be started or does not answer.
  static absl::StatusOr<RedisPeer> Start();

  // The size of the value. NOT_FOUND when there is none.
  absl::StatusOr<uint64_t> Get(uint64_t key);
  // GETs of the keys [0, count), so many of them in flight at a time. The sum of the sizes.
  absl::StatusOr<uint64_t> GetAll(uint64_t count, size_t in_flight);
  // SETs of the keys [0, count) to `value_of` each, likewise.
  absl::Status SetAll(uint64_t count, size_t in_flight,
                      const std::function<std::span<const uint8_t>(uint64_t key)>& value_of);
  // Deletes all keys; their memory is free when it returns.
  absl::Status Clear();

  pid_t id() const { return server_.id(); }

 private:
  struct Free {
    void operator()(redisContext* context) const;
  };
  using Connection = std::unique_ptr<redisContext, Free>;

  RedisPeer(ChildProcess server, Connection connection)
      : server_(std::move(server)), connection_(std::move(connection)) {}

  void AppendGet(uint64_t key);
  void AppendSet(uint64_t key, std::span<const uint8_t> value);
  // `append` for each key in [0, count), keeping so many commands in flight. The sum of the replies.
  absl::StatusOr<uint64_t> Pipeline(uint64_t count, size_t in_flight, const std::function<void(uint64_t key)>& append);
  // The reply to the oldest command in flight: its length when it is a string, 0 when it is a plain OK.
  absl::StatusOr<uint64_t> Reply();

  ChildProcess server_;
  Connection connection_;
};

// An iperf3 server, ended by the destructor.
class Iperf3Peer {
 public:
  // NOT_FOUND when iperf3 is missing.
  static absl::StatusOr<Iperf3Peer> Start(const ServerPlace& place = {});

  const Endpoint& endpoint() const { return endpoint_; }
  // Gigabytes a second of one TCP stream of so many bytes from the server, reached at `address`, to this side.
  // UNAVAILABLE when it fails.
  absl::StatusOr<double> Receive(const Endpoint& address, uint64_t bytes) const;

 private:
  Iperf3Peer(ChildProcess server, Endpoint endpoint) : server_(std::move(server)), endpoint_(std::move(endpoint)) {}

  ChildProcess server_;
  Endpoint endpoint_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_NETWORK_PEERS_H_
