// RedisPeer and RunIperf3: what others move over loopback, as the peers of our own numbers.
//
//   KDN_ASSIGN_OR_RETURN(bench::RedisPeer redis, bench::RedisPeer::Start());
//   KDN_RETURN_IF_ERROR(redis.Set(7, value));
//   KDN_ASSIGN_OR_RETURN(uint64_t bytes, redis.Get(7));
//
// Thread-safety: one thread at a time, or they measure each other.
#ifndef KDN_BENCH_NETWORK_PEERS_H_
#define KDN_BENCH_NETWORK_PEERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "integration/process/child_process.h"

struct redisContext;

namespace kdn::bench {

// A redis-server of its own, without persistence, ended by the destructor, and one connection to it by hiredis.
class RedisPeer {
 public:
  // UNAVAILABLE when redis-server cannot be started or does not answer.
  static absl::StatusOr<RedisPeer> Start();

  absl::Status Set(uint64_t key, std::span<const uint8_t> value);
  // The size of the value. NOT_FOUND when there is none.
  absl::StatusOr<uint64_t> Get(uint64_t key);
  // GETs of the keys [0, count), so many of them in flight at a time. The sum of the sizes.
  absl::StatusOr<uint64_t> GetAll(uint64_t count, size_t in_flight);
  absl::Status Clear();

 private:
  struct Free {
    void operator()(redisContext* context) const;
  };
  using Connection = std::unique_ptr<redisContext, Free>;

  RedisPeer(ChildProcess server, Connection connection)
      : server_(std::move(server)), connection_(std::move(connection)) {}

  // The reply to the oldest command in flight: its length when it is a string, 0 when it is a plain OK.
  absl::StatusOr<uint64_t> Reply();

  ChildProcess server_;
  Connection connection_;
};

// Gigabytes a second of one TCP stream over loopback. UNAVAILABLE when iperf3 is missing or fails.
absl::StatusOr<double> RunIperf3(absl::Duration length);

}  // namespace kdn::bench

#endif  // KDN_BENCH_NETWORK_PEERS_H_
