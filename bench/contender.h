// Contender: one way to move all slabs of a Dataset, measured in turn with others (RunRounds): throughput, and the
// processor time that a byte costs in this process and in the server's; where it can, the latency of one slab as well.
//
// Thread-safety: one thread at a time, or they measure each other.
#ifndef KDN_BENCH_CONTENDER_H_
#define KDN_BENCH_CONTENDER_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/network_data.h"

namespace kdn::bench {

inline constexpr pid_t kNoServer = 0;

class Contender {
 public:
  Contender(std::string name, pid_t server) : name_(std::move(name)), server_(server) {}
  virtual ~Contender() = default;
  Contender(const Contender&) = delete;
  Contender& operator=(const Contender&) = delete;

  // Moves every slab, as fast as it can.
  virtual absl::Status All() = 0;
  // Takes back what All has changed, so that the next one has as much to do. It is not measured.
  virtual absl::Status Undo() { return absl::OkStatus(); }
  // Whether One moves a single slab.
  virtual bool has_single() const { return false; }
  virtual absl::Status One(uint64_t slab);

  // All and Undo twice, of which the second All is measured; then `calls` times One.
  absl::Status Measure(const Dataset& data, uint64_t calls, std::mt19937& random);

  const std::string& name() const { return name_; }
  double Gbps() const;                        // median of the rounds
  double SingleMicroseconds(double q) const;  // quantile of One
  double ClientCpu() const;                   // nanoseconds a KiB in this process, over all rounds
  double ServerCpu() const;                   // likewise in the server's
  double Cpu() const { return ClientCpu() + ServerCpu(); }
  // {"slab", "peer", "gbps", "p50_us", "p99_us", "client_cpu_ns_per_kib", "server_cpu_ns_per_kib"}; "" for what it has
  // not got.
  nlohmann::json Row(uint64_t slab_kib) const;

 private:
  double NanosecondsPerKib(double seconds) const;

  const std::string name_;
  const pid_t server_;
  std::vector<double> gbps_;     // by round
  std::vector<double> singles_;  // seconds, by call of One
  double bytes_ = 0;             // of all rounds, as are these
  double client_cpu_ = 0;
  double server_cpu_ = 0;
};

// Measures each contender once a round, in another order each time; calls `end_round` after each round.
absl::Status RunRounds(
    std::span<Contender* const> contenders, const Dataset& data, int rounds, uint64_t calls,
    const std::function<absl::Status()>& end_round = [] { return absl::OkStatus(); });

}  // namespace kdn::bench

#endif  // KDN_BENCH_CONTENDER_H_
