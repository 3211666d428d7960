// What a codec gains over a slow link: raw bytes that arrive in engine memory in a second, chunks stored as they are
// beside chunks stored by a lossless codec, in turn and in the same run. One iperf3 stream shows what the link gives.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_LINK_CODECS_H_
#define KDN_BENCH_LINK_CODECS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "bench/report.h"
#include "bench/slow_link.h"

namespace kdn::bench {

struct LinkSettings {
  std::string node;  // program
  LinkEmulator emulator = LinkEmulator::kAuto;
  int rounds = 7;
};

// Adds rows and goals for links of 1 and 10 Gbit/s, and a fact that says how they were emulated, to `report`.
absl::Status MeasureLinks(const LinkSettings& settings, Report& report);

}  // namespace kdn::bench

#endif  // KDN_BENCH_LINK_CODECS_H_
