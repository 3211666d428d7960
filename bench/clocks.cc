#include "bench/clocks.h"

#include <ctime>

namespace kdn::bench {

absl::StatusOr<double> CpuSeconds(pid_t id) {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(id, &clock) != 0 || clock_gettime(clock, &used) != 0) return NotFound("no process {}", id);
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

}  // namespace kdn::bench
