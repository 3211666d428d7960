// registry_crash_worker PATH: opens the embedded registry at PATH and counts up in it until it is killed. Each commit
// writes the count to two records; it is written to standard output, in a line, once that is acknowledged.
#include <unistd.h>

#include <memory>
#include <string>

#include "placement/registry/registry.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  absl::StatusOr<std::unique_ptr<kdn::Registry>> registry = kdn::OpenEmbeddedRegistry({.path = argv[1]});
  if (!registry.ok()) return 3;
  const absl::StatusOr<kdn::Snapshot> now = (*registry)->Read("", absl::InfiniteFuture());
  const absl::StatusOr<kdn::LeaseId> lease = (*registry)->Grant(absl::Hours(1), absl::InfiniteFuture());
  if (!now.ok() || !lease.ok()) return 4;
  const kdn::Record* left = now->Find("left");
  for (int count = left == nullptr ? 1 : std::stoi(left->value) + 1;; ++count) {
    kdn::Change change;
    change.puts.push_back({.key = "left", .value = std::to_string(count)});
    change.puts.push_back({.key = "right", .value = std::to_string(count), .lease = *lease});
    if (!(*registry)->Commit(change, absl::InfiniteFuture()).ok()) return 5;
    const std::string line = std::to_string(count) + "\n";
    if (write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) return 6;
  }
}
