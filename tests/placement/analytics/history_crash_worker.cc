// history_crash_worker DIRECTORY: records, in the history there, a token a second by a clock of its own until it is
// killed. The count is written to standard output, in a line, once it is recorded.
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "placement/analytics/history.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  kdn::ManualClock clock(absl::FromUnixSeconds(1'700'000'000));
  const absl::Time began = clock.Now();
  const absl::StatusOr<std::unique_ptr<kdn::History>> history = kdn::History::Open({.path = argv[1]}, clock);
  if (!history.ok()) return 3;
  kdn::SpaceId space;
  space.bytes.fill(1);
  for (int count = 1;; ++count) {
    clock.Advance(absl::Seconds(1));
    kdn::CacheCounts counts;
    counts.asked.tokens = count;
    const std::vector<kdn::NodeReading> readings = {
        {.node = "a", .since = began, .taken = clock.Now(), .counts = {{space, counts}}}};
    if (!(*history)->Record(readings, {}).ok()) return 4;
    const std::string line = std::to_string(count) + "\n";
    if (write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) return 5;
  }
}
