#include "bench/lookup_latency.h"

#include <fmt/core.h>

#include <atomic>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/clocks.h"
#include "bench/fetch_contender.h"
#include "bench/network_data.h"
#include "kdn-client/transport.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr size_t kKeys = 128;
constexpr RemoteOptions kTcp = {.bulk = true, .shared_memory = false};

// Fetches all of a contender's slabs again and again, on a thread of its own, until it is stopped.
class BusyStream {
 public:
  BusyStream(FetchContender& contender, uint64_t bytes)
      : contender_(contender), bytes_(bytes), thread_([this] { Run(); }) {
    running_.wait();
  }
  ~BusyStream() { Stop().IgnoreError(); }
  BusyStream(const BusyStream&) = delete;
  BusyStream& operator=(const BusyStream&) = delete;

  // Gigabytes a second that it has fetched, or why it could not.
  absl::StatusOr<double> Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    if (!status_.ok()) return status_;
    return static_cast<double>(fetched_) / seconds_ / 1e9;
  }

 private:
  void Run() {
    const absl::StatusOr<double> seconds = Timed([this] {
      status_ = contender_.All();
      running_.count_down();
      for (fetched_ = bytes_; status_.ok() && !stop_; fetched_ += bytes_) status_ = contender_.All();
      return absl::OkStatus();
    });
    seconds_ = seconds.value_or(0);
  }

  FetchContender& contender_;
  const uint64_t bytes_;
  std::latch running_{1};
  std::atomic<bool> stop_ = false;
  absl::Status status_;  // the thread's until it has been joined, as are these
  uint64_t fetched_ = 0;
  double seconds_ = 0;
  std::thread thread_;
};

class LookupBench {
 public:
  LookupBench(std::shared_ptr<Transport> transport, const Dataset& data, const LookupSettings& settings)
      : transport_(std::move(transport)), space_(data.space_id()), keys_(data.Keys()), settings_(settings) {}

  // Seconds of each.
  absl::StatusOr<std::vector<double>> Run() {
    KDN_RETURN_IF_ERROR(Lookup());  // to warm up
    std::vector<double> seconds;
    const absl::Duration period = absl::Seconds(1) / settings_.per_second;
    absl::Time due = absl::Now();
    for (int i = 0; i < settings_.lookups; ++i) {
      absl::SleepFor(due - absl::Now());
      KDN_ASSIGN_OR_RETURN(const double one, Timed([this] { return Lookup(); }));
      seconds.push_back(one);
      due = std::max(due + period, absl::Now());
    }
    return seconds;
  }

 private:
  absl::Status Lookup() {
    KDN_ASSIGN_OR_RETURN(const std::vector<FoundChunk> found,
                         transport_->Lookup(space_, keys_, Fidelity::kExact, absl::Now() + kCallDeadline));
    for (const FoundChunk& chunk : found) {
      if (chunk.miss.reason != MissReason::kNone) return DataLoss("a chunk was not found: {}", chunk.miss.detail);
    }
    if (found.size() == keys_.size()) return absl::OkStatus();
    return Internal("{} of {} keys have an answer", found.size(), keys_.size());
  }

  const std::shared_ptr<Transport> transport_;
  const SpaceId space_;
  const std::vector<ChunkKey> keys_;
  const LookupSettings& settings_;
};

nlohmann::json Row(const char* what, const std::vector<double>& seconds, double stream_gbps) {
  return {{"lookup of 128 keys", what},
          {"lookups", seconds.size()},
          {"p50_us", 1e6 * Quantile(seconds, 0.5)},
          {"p99_us", 1e6 * Quantile(seconds, 0.99)},
          {"stream_gbps", stream_gbps}};
}

}  // namespace

absl::Status MeasureLookups(const NodeProcess& node, const LookupSettings& settings, Report& report) {
  constexpr uint64_t kChunkBytes = uint64_t{128} << 10;  // of slabs of 4 KiB
  const std::string target = node.endpoint().ToString();
  KDN_ASSIGN_OR_RETURN(const Dataset looked_up, Dataset::Create("lookup", 4096, kKeys * kChunkBytes));
  if (looked_up.chunks().size() != kKeys) return Internal("{} chunks for {} keys", looked_up.chunks().size(), kKeys);
  KDN_ASSIGN_OR_RETURN(const Dataset streamed, Dataset::Create("stream", 1 << 20, settings.stream_mib << 20));
  const EngineMemory small(looked_up);
  EngineMemory destination(streamed);
  const std::shared_ptr<Transport> transport = MakeRemoteTransport(target, kTcp);
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(looked_up.space(), transport));
  KDN_ASSIGN_OR_RETURN(
      const std::unique_ptr<FetchContender> stream,
      FetchContender::Create("stream", MakeRemoteTransport(target, kTcp), node.id(), streamed, destination));
  KDN_RETURN_IF_ERROR(StoreAll(*client, looked_up, small, "raw").status());
  destination.FillWithNoise();
  KDN_RETURN_IF_ERROR(StoreAll(stream->client(), streamed, destination, "raw").status());

  LookupBench bench(transport, looked_up, settings);
  KDN_ASSIGN_OR_RETURN(const std::vector<double> idle, bench.Run());
  BusyStream busy(*stream, streamed.bytes());
  KDN_ASSIGN_OR_RETURN(const std::vector<double> beside, bench.Run());
  KDN_ASSIGN_OR_RETURN(const double stream_gbps, busy.Stop());
  report.AddRow(Row("idle", idle, 0));
  report.AddRow(Row("beside a stream", beside, stream_gbps));
  const auto add_goal = [&](const char* name, double q, double goal) {
    report.AddGoal({.name = fmt::format("lookup of 128 keys beside a stream, {}", name),
                    .value = 1e6 * Quantile(beside, q),
                    .unit = "µs",
                    .goal = goal,
                    .better = Better::kLower});
  };
  add_goal("p50", 0.5, 300);
  add_goal("p99", 0.99, 1500);
  KDN_RETURN_IF_ERROR(DeleteAll(*client, looked_up));
  return DeleteAll(stream->client(), streamed);
}

}  // namespace kdn::bench
