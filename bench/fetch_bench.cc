// What a fetch from a node's memory costs.
//
//   ./dev bench fetch [--parts slabs lookups links] [--rounds N] [--mib N] [--kib N...] [--node PATH]
//
// slabs: by size of slab, on one machine: throughput of one call for many slabs, latency of one call for one slab, and
// the processor time that a byte costs at both ends; by KDN's own protocol over TCP, with slabs by shared memory, and
// by gRPC. Beside them, in turn and in the same rounds: Redis GET of values of the same size, one by one and pipelined;
// one iperf3 stream; and memcpy of the same bytes. All have one client thread and one connection. KDN's fetches verify
// every checksum and end in engine memory; a Redis GET ends in hiredis's reply object.
// lookups: see lookup_latency.h. links: see link_codecs.h.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/contender.h"
#include "bench/fetch_contender.h"
#include "bench/link_codecs.h"
#include "bench/lookup_latency.h"
#include "bench/network_data.h"
#include "bench/network_peers.h"
#include "bench/node_process.h"
#include "bench/report.h"
#include "kdn-client/transport.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr uint64_t kIperf3Bytes = uint64_t{1} << 30;  // some 0.3 s

struct Options {
  std::string node = NodeProcess::DefaultProgram();
  std::vector<std::string> parts = {"slabs", "lookups", "links"};
  uint64_t mib = 128;  // of each size
  int rounds = 7;
  uint64_t calls = 100;  // one-slab calls in a round, at most
  std::vector<uint64_t> kib = {64, 256, 1024, 4096, 16384};
  int lookups = 2000;
  LinkEmulator emulator = LinkEmulator::kAuto;
  std::string repeat;

  bool Has(const char* part) const { return std::ranges::find(parts, part) != parts.end(); }
};

class RedisGet final : public Contender {
 public:
  RedisGet(std::string name, RedisPeer& redis, const Dataset& data, size_t in_flight)
      : Contender(std::move(name), redis.id()), redis_(redis), data_(data), in_flight_(in_flight) {}

  absl::Status All() override { return Expect(redis_.GetAll(data_.slabs(), in_flight_), data_.bytes()); }
  bool has_single() const override { return in_flight_ == 1; }
  absl::Status One(uint64_t slab) override { return Expect(redis_.Get(slab), data_.slab_bytes()); }

 private:
  static absl::Status Expect(const absl::StatusOr<uint64_t>& got, uint64_t wanted) {
    if (!got.ok()) return got.status();
    if (*got == wanted) return absl::OkStatus();
    return DataLoss("{} bytes came, {} were asked for", *got, wanted);
  }

  RedisPeer& redis_;
  const Dataset& data_;
  const size_t in_flight_;
};

class MemoryCopy final : public Contender {
 public:
  MemoryCopy(const Dataset& data, const EngineMemory& source, EngineMemory& destination)
      : Contender("memcpy", kNoServer), slabs_(data.slabs()), source_(source), destination_(destination) {}

  absl::Status All() override {
    for (uint64_t slab = 0; slab < slabs_; ++slab) KDN_RETURN_IF_ERROR(One(slab));
    return absl::OkStatus();
  }
  bool has_single() const override { return true; }
  absl::Status One(uint64_t slab) override {
    const std::span<const uint8_t> from = source_.Slab(slab);
    std::memcpy(destination_.Slab(slab).data(), from.data(), from.size());
    return absl::OkStatus();
  }

 private:
  const uint64_t slabs_;
  const EngineMemory& source_;
  EngineMemory& destination_;
};

// What is measured of one size of slab.
class SlabBench {
 public:
  SlabBench(const Options& options, const NodeProcess& node, RedisPeer& redis, const Iperf3Peer& iperf3, Report& report)
      : options_(options), node_(node), redis_(redis), iperf3_(iperf3), report_(report) {}

  absl::Status Measure(uint64_t kib) {
    KDN_ASSIGN_OR_RETURN(const Dataset data, Dataset::Create("fetch", kib * 1024, options_.mib << 20));
    EngineMemory source(data);
    source.FillWithNoise();
    EngineMemory destination(data);
    const auto make = [&](const char* name, const RemoteOptions& remote) {
      return FetchContender::Create(name, MakeRemoteTransport(node_.endpoint().ToString(), remote), node_.id(), data,
                                    destination);
    };
    KDN_ASSIGN_OR_RETURN(const auto tcp, make("kdn tcp", {.bulk = true, .shared_memory = false}));
    KDN_ASSIGN_OR_RETURN(const auto shared, make("kdn shared memory", {.bulk = true, .shared_memory = true}));
    KDN_ASSIGN_OR_RETURN(const auto grpc, make("kdn grpc", {.bulk = false, .shared_memory = false}));
    RedisGet get("redis get", redis_, data, 1);
    RedisGet pipelined("redis get pipelined", redis_, data, kRedisInFlight);
    MemoryCopy copy(data, source, destination);

    KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> owner,
                         Client::Create(data.space(), MakeRemoteTransport(node_.endpoint().ToString())));
    KDN_RETURN_IF_ERROR(StoreAll(*owner, data, source, "raw").status());
    KDN_RETURN_IF_ERROR(redis_.SetAll(data.slabs(), 1, [&](uint64_t key) { return source.Slab(key); }));
    for (FetchContender* contender : {tcp.get(), shared.get(), grpc.get()}) {
      for (int i = 0; i < 2; ++i) KDN_RETURN_IF_ERROR(contender->Check(source));  // to warm up, too
    }
    const std::vector<Contender*> contenders = {tcp.get(), &get, shared.get(), &pipelined, grpc.get(), &copy};
    for (Contender* contender : {static_cast<Contender*>(&get), static_cast<Contender*>(&pipelined)}) {
      KDN_RETURN_IF_ERROR(contender->All());
    }
    if (!options_.repeat.empty()) return Repeat(contenders);
    std::vector<double> stream;
    KDN_RETURN_IF_ERROR(
        RunRounds(contenders, data, options_.rounds, std::min(options_.calls, 2 * data.slabs()), [&]() -> absl::Status {
          KDN_ASSIGN_OR_RETURN(const double gbps, iperf3_.Receive(iperf3_.endpoint(), kIperf3Bytes));
          stream.push_back(gbps);
          return absl::OkStatus();
        }));

    for (const Contender* contender : contenders) report_.AddRow(contender->Row(kib));
    AddComparison(kib, {.tcp = *tcp,
                        .shared = *shared,
                        .grpc = *grpc,
                        .get = get,
                        .pipelined = pipelined,
                        .copy = copy,
                        .stream_gbps = Quantile(stream, 0.5)});
    KDN_RETURN_IF_ERROR(DeleteAll(*owner, data));
    return redis_.Clear();
  }

  // Nothing but one contender, for a profiler to look at.
  absl::Status Repeat(const std::vector<Contender*>& contenders) const {
    for (Contender* contender : contenders) {
      if (contender->name() != options_.repeat) continue;
      for (const absl::Time end = absl::Now() + absl::Seconds(5); absl::Now() < end;) {
        KDN_RETURN_IF_ERROR(contender->All());
      }
      return absl::OkStatus();
    }
    return InvalidArgument("--repeat: there is no contender '{}'", options_.repeat);
  }

  // The rows that compare, below all that are compared.
  void AddComparisons() {
    for (nlohmann::json& row : comparisons_) report_.AddRow(std::move(row));
    comparisons_.clear();
  }

 private:
  struct Measured {
    const Contender& tcp;
    const Contender& shared;
    const Contender& grpc;
    const Contender& get;
    const Contender& pipelined;
    const Contender& copy;
    double stream_gbps;
  };

  void AddComparison(uint64_t kib, const Measured& m) {
    const std::string size = SizeName(kib);
    const double redis = std::max(m.get.Gbps(), m.pipelined.Gbps());
    comparisons_.push_back({{"slab", size},
                            {"iperf3 gbps", m.stream_gbps},
                            {"tcp ÷ redis get", m.tcp.Gbps() / m.get.Gbps()},
                            {"tcp ÷ pipelined", m.tcp.Gbps() / m.pipelined.Gbps()},
                            {"tcp ÷ iperf3", m.tcp.Gbps() / m.stream_gbps},
                            {"tcp ÷ grpc", m.tcp.Gbps() / m.grpc.Gbps()},
                            {"shared ÷ redis get", m.shared.Gbps() / m.get.Gbps()},
                            {"shared ÷ pipelined", m.shared.Gbps() / m.pipelined.Gbps()},
                            {"shared ÷ memcpy", m.shared.Gbps() / m.copy.Gbps()}});
    const auto goal = [&](const std::string& what, double value, double wanted) {
      report_.AddGoal({.name = fmt::format("{} at {}", what, size),
                       .value = value,
                       .unit = "×",
                       .goal = wanted,
                       .better = Better::kHigher});
    };
    goal("fetch over TCP ÷ Redis", m.tcp.Gbps() / redis, 1.2);
    if (kib >= 256) goal("fetch over TCP ÷ iperf3", m.tcp.Gbps() / m.stream_gbps, 0.9);
    if (kib >= 1024) {
      goal("fetch by shared memory ÷ Redis", m.shared.Gbps() / redis, 2);
      goal("fetch by shared memory ÷ memcpy", m.shared.Gbps() / m.copy.Gbps(), 0.7);
    }
    report_.AddGoal({.name = fmt::format("processor time a byte, TCP ÷ Redis at {}", size),
                     .value = m.tcp.Cpu() / std::min(m.get.Cpu(), m.pipelined.Cpu()),
                     .unit = "×",
                     .goal = 1,
                     .better = Better::kLower});
    if (kib == 64) {
      report_.AddGoal({.name = "one slab of 64 KiB by shared memory, p50",
                       .value = m.shared.SingleMicroseconds(0.5),
                       .unit = "µs",
                       .goal = 60,
                       .better = Better::kLower});
    }
  }

  const Options& options_;
  const NodeProcess& node_;
  RedisPeer& redis_;
  const Iperf3Peer& iperf3_;
  Report& report_;
  std::vector<nlohmann::json> comparisons_;
};

absl::Status MeasureSlabs(const Options& options, const NodeProcess& node, Report& report) {
  KDN_ASSIGN_OR_RETURN(RedisPeer redis, RedisPeer::Start());
  KDN_ASSIGN_OR_RETURN(const Iperf3Peer iperf3, Iperf3Peer::Start());
  SlabBench bench(options, node, redis, iperf3, report);
  for (const uint64_t kib : options.kib) {
    if (const absl::Status status = bench.Measure(kib); !status.ok()) return Annotate(status, SizeName(kib));
  }
  bench.AddComparisons();
  report.SetFact("mib_by_size", options.mib);
  report.SetFact("redis_in_flight", kRedisInFlight);
  report.SetFact(
      "compared",
      "one client thread, one connection each; kdn: checksums verified, bytes in engine memory; redis: bytes "
      "in hiredis reply objects, and the better of its two ways counts; memcpy: one thread, the same bytes; "
      "processor time: user and system of all threads, over the rounds of whole fetches");
  return absl::OkStatus();
}

absl::Status Run(const Options& options, Report& report) {
  report.SetFact("rounds", options.rounds);
  {
    KDN_ASSIGN_OR_RETURN(const NodeProcess node, NodeProcess::Start(options.node));
    if (options.Has("slabs")) KDN_RETURN_IF_ERROR(MeasureSlabs(options, node, report));
    if (options.Has("lookups")) {
      KDN_RETURN_IF_ERROR(MeasureLookups(node, {.lookups = options.lookups, .stream_mib = options.mib}, report));
    }
  }
  if (!options.Has("links")) return absl::OkStatus();
  return MeasureLinks({.node = options.node, .emulator = options.emulator, .rounds = options.rounds}, report);
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) {
  using kdn::bench::LinkEmulator;
  kdn::bench::Options options;
  CLI::App app("Fetch from a node's memory, beside Redis GET, iperf3 and memcpy.");
  app.add_option("--node", options.node, "The kdn-node to measure")->capture_default_str();
  app.add_option("--parts", options.parts, "What to measure")
      ->capture_default_str()
      ->check(CLI::IsMember({"slabs", "lookups", "links"}));
  app.add_option("--mib", options.mib, "MiB of data of each size")->capture_default_str()->check(CLI::Range(16, 1024));
  app.add_option("--rounds", options.rounds, "Interleaved rounds")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--calls", options.calls, "One-slab calls a round")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--kib", options.kib, "Sizes of slabs in KiB, powers of two")->check(CLI::Range(64, 65536));
  app.add_option(
      "--repeat", options.repeat,
      "For profilers: only runs this contender, as in \"kdn tcp\", for five seconds a size, and records nothing");
  app.add_option("--lookups", options.lookups, "Lookups, idle and beside a stream")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  const std::map<std::string, LinkEmulator> emulators = {
      {"auto", LinkEmulator::kAuto}, {"namespace", LinkEmulator::kNamespace}, {"proxy", LinkEmulator::kProxy}};
  app.add_option("--link-emulator", options.emulator, "How links are emulated: a network namespace needs root")
      ->transform(CLI::CheckedTransformer(emulators));
  CLI11_PARSE(app, argc, argv);

  kdn::bench::Report report("fetch");
  if (const absl::Status status = kdn::bench::Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench fetch: {}\n", kdn::MessageOf(status));
    return 1;
  }
  return options.repeat.empty() ? report.Finish() : 0;
}
