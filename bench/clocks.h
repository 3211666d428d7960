// Timed and CpuSeconds: how long an action takes, and how much processor time a process has used.
//
//   KDN_ASSIGN_OR_RETURN(const double seconds, Timed([&] { return client->Store(…).status(); }));
//   KDN_ASSIGN_OR_RETURN(const double cpu, CpuSeconds(node.id()));
//
// Thread-safety: pure functions.
#ifndef KDN_BENCH_CLOCKS_H_
#define KDN_BENCH_CLOCKS_H_

#include <sys/types.h>

#include <chrono>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/status.h"

namespace kdn::bench {

// Seconds that `action`, which returns an absl::Status, takes.
template <typename Action>
absl::StatusOr<double> Timed(Action&& action) {
  const auto begin = std::chrono::steady_clock::now();
  KDN_RETURN_IF_ERROR(action());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Processor time that all threads of the process `id` have used so far, user and system, those that have ended among
// them. NOT_FOUND when there is no such process.
absl::StatusOr<double> CpuSeconds(pid_t id);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CLOCKS_H_
