#include "bench/contender.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/clocks.h"
#include "bench/report.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

// How long threads in the background may take to finish what a call has left them, such as to free its buffers: it is
// the processor time of who made the call, not of who comes next.
constexpr absl::Duration kSettle = absl::Milliseconds(20);

// A contender without a server uses none.
absl::StatusOr<double> ServerSeconds(pid_t server) {
  if (server == kNoServer) return 0.0;
  return CpuSeconds(server);
}

}  // namespace

absl::Status Contender::One(uint64_t /*slab*/) { return Unimplemented("{} has no single slabs", name_); }

absl::Status Contender::Measure(const Dataset& data, uint64_t calls, std::mt19937& random) {
  // First without measuring, so that it does not pay for what ran before it (processor caches, memory given back).
  KDN_RETURN_IF_ERROR(All());
  KDN_RETURN_IF_ERROR(Undo());
  absl::SleepFor(kSettle);
  KDN_ASSIGN_OR_RETURN(const double client_before, CpuSeconds(getpid()));
  KDN_ASSIGN_OR_RETURN(const double server_before, ServerSeconds(server_));
  KDN_ASSIGN_OR_RETURN(const double seconds, Timed([&] { return All(); }));
  absl::SleepFor(kSettle);
  KDN_ASSIGN_OR_RETURN(const double client_after, CpuSeconds(getpid()));
  KDN_ASSIGN_OR_RETURN(const double server_after, ServerSeconds(server_));
  const auto bytes = static_cast<double>(data.bytes());
  gbps_.push_back(bytes / seconds / 1e9);
  bytes_ += bytes;
  client_cpu_ += client_after - client_before;
  server_cpu_ += server_after - server_before;
  KDN_RETURN_IF_ERROR(Undo());
  if (!has_single()) return absl::OkStatus();

  std::uniform_int_distribution<uint64_t> any(0, data.slabs() - 1);
  for (uint64_t i = 0; i < calls; ++i) {
    const uint64_t slab = any(random);
    KDN_ASSIGN_OR_RETURN(const double one, Timed([&] { return One(slab); }));
    singles_.push_back(one);
  }
  return absl::OkStatus();
}

double Contender::Gbps() const { return Quantile(gbps_, 0.5); }
double Contender::SingleMicroseconds(double q) const { return 1e6 * Quantile(singles_, q); }
double Contender::ClientCpu() const { return NanosecondsPerKib(client_cpu_); }
double Contender::ServerCpu() const { return NanosecondsPerKib(server_cpu_); }

double Contender::NanosecondsPerKib(double seconds) const { return 1e9 * seconds / (bytes_ / 1024); }

nlohmann::json Contender::Row(uint64_t slab_kib) const {
  const auto or_blank = [](bool there, double value) { return there ? nlohmann::json(value) : nlohmann::json(""); };
  return {{"slab", SizeName(slab_kib)},
          {"peer", name_},
          {"gbps", Gbps()},
          {"p50_us", or_blank(has_single(), SingleMicroseconds(0.5))},
          {"p99_us", or_blank(has_single(), SingleMicroseconds(0.99))},
          {"client_cpu_ns_per_kib", ClientCpu()},
          {"server_cpu_ns_per_kib", or_blank(server_ != kNoServer, ServerCpu())}};
}

absl::Status RunRounds(std::span<Contender* const> contenders, const Dataset& data, int rounds, uint64_t calls,
                       const std::function<absl::Status()>& end_round) {
  std::mt19937 random(1);
  std::vector<Contender*> order(contenders.begin(), contenders.end());
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (Contender* contender : order) {
      const absl::Status status = contender->Measure(data, calls, random);
      if (!status.ok()) return Annotate(status, contender->name());
    }
    KDN_RETURN_IF_ERROR(end_round());
  }
  return absl::OkStatus();
}

}  // namespace kdn::bench
