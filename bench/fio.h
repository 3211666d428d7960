// Fio: what the disk itself can do, measured by fio, as the peer of our own numbers.
//
//   absl::StatusOr<double> gbps = bench::RunFio(directory, {.rw = "write", .mib = 1024, .sync_mib = 16});
//
// Thread-safety: one run at a time, or they measure each other.
#ifndef KDN_BENCH_FIO_H_
#define KDN_BENCH_FIO_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kdn::bench {

struct FioJob {
  std::string rw;         // "read" or "write", sequential, in blocks of 1 MiB
  bool direct = true;     // as O_DIRECT
  uint64_t mib = 1024;    // in all
  uint32_t jobs = 1;      // threads, each with a stretch of the one file
  uint32_t sync_mib = 0;  // fdatasync after so many MiB written; 0: once at the end
};

// Gigabytes a second, syncs included. A "read" reads what a "write" of the same size left in `directory`, dropped from
// the page cache before. UNAVAILABLE when fio is missing or fails, with what it said.
absl::StatusOr<double> RunFio(const std::string& directory, const FioJob& job);

}  // namespace kdn::bench

#endif  // KDN_BENCH_FIO_H_
