// Latency of a lookup of 128 keys that are held, at a modest rate over TCP: by itself, and beside another client that
// fetches slabs of 1 MiB from the same node all the time.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_LOOKUP_LATENCY_H_
#define KDN_BENCH_LOOKUP_LATENCY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "bench/node_process.h"
#include "bench/report.h"

namespace kdn::bench {

struct LookupSettings {
  int lookups = 2000;  // of each case
  int per_second = 200;
  uint64_t stream_mib = 128;  // that the other client fetches again and again
};

// Adds rows and goals to `report`.
absl::Status MeasureLookups(const NodeProcess& node, const LookupSettings& settings, Report& report);

}  // namespace kdn::bench

#endif  // KDN_BENCH_LOOKUP_LATENCY_H_
