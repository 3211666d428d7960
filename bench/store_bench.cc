// What a store into a node's memory costs, by size of slab, on one machine: throughput of one call that stores many
// chunks as they are (codec raw), acknowledged once they are in memory, and the processor time that a byte costs at
// both ends; by KDN's own protocol over TCP, with slabs by shared memory, and by gRPC. Beside it, in turn and in the
// same run: Redis SET of values of the same size, one by one and pipelined.
//
//   ./dev bench store [--rounds N] [--mib N] [--kib N...] [--node PATH]
//
// All have one client thread and one connection, and start from an empty server each time: what was written is deleted
// between the rounds, outside of what is measured. KDN computes a checksum of every slab; Redis computes none.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/contender.h"
#include "bench/network_data.h"
#include "bench/network_peers.h"
#include "bench/node_process.h"
#include "bench/report.h"
#include "kdn-client/transport.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

struct Options {
  std::string node = NodeProcess::DefaultProgram();
  uint64_t mib = 128;  // of each size
  int rounds = 7;
  std::vector<uint64_t> kib = {64, 256, 1024, 4096, 16384};
};

class KdnStore final : public Contender {
 public:
  static absl::StatusOr<std::unique_ptr<KdnStore>> Create(std::string name, const RemoteOptions& remote,
                                                          const NodeProcess& node, const Dataset& data,
                                                          const EngineMemory& source) {
    KDN_ASSIGN_OR_RETURN(std::unique_ptr<Client> client,
                         Client::Create(data.space(), MakeRemoteTransport(node.endpoint().ToString(), remote)));
    return std::unique_ptr<KdnStore>(new KdnStore(std::move(name), node.id(), std::move(client), data, source));
  }

  absl::Status All() override { return StoreAll(*client_, data_, source_, "raw").status(); }
  absl::Status Undo() override { return DeleteAll(*client_, data_); }

  // All and Undo, once. DATA_LOSS when the node does not hold what `source` has in between.
  absl::Status Check(EngineMemory& scratch) {
    scratch.FillWithZeros();
    KDN_RETURN_IF_ERROR(All());
    KDN_RETURN_IF_ERROR(FetchChunks(*client_, data_.chunks(), {}, scratch));
    if (!(scratch == source_)) return DataLoss("{}: what the node holds is not what was stored", name());
    return Undo();
  }

 private:
  KdnStore(std::string name, pid_t server, std::unique_ptr<Client> client, const Dataset& data,
           const EngineMemory& source)
      : Contender(std::move(name), server), client_(std::move(client)), data_(data), source_(source) {}

  const std::unique_ptr<Client> client_;
  const Dataset& data_;
  const EngineMemory& source_;
};

class RedisSet final : public Contender {
 public:
  RedisSet(std::string name, RedisPeer& redis, const Dataset& data, const EngineMemory& source, size_t in_flight)
      : Contender(std::move(name), redis.id()), redis_(redis), data_(data), source_(source), in_flight_(in_flight) {}

  absl::Status All() override {
    return redis_.SetAll(data_.slabs(), in_flight_, [this](uint64_t key) { return source_.Slab(key); });
  }
  absl::Status Undo() override { return redis_.Clear(); }

  // All and Undo, once. DATA_LOSS when Redis does not hold as many bytes in between.
  absl::Status Check() {
    KDN_RETURN_IF_ERROR(All());
    KDN_ASSIGN_OR_RETURN(const uint64_t bytes, redis_.GetAll(data_.slabs(), 1));
    if (bytes != data_.bytes()) return DataLoss("{}: {} of {} bytes are there", name(), bytes, data_.bytes());
    return Undo();
  }

 private:
  RedisPeer& redis_;
  const Dataset& data_;
  const EngineMemory& source_;
  const size_t in_flight_;
};

class StoreBench {
 public:
  StoreBench(const Options& options, const NodeProcess& node, RedisPeer& redis, Report& report)
      : options_(options), node_(node), redis_(redis), report_(report) {}

  absl::Status Measure(uint64_t kib) {
    KDN_ASSIGN_OR_RETURN(const Dataset data, Dataset::Create("store", kib * 1024, options_.mib << 20));
    EngineMemory source(data);
    source.FillWithNoise();
    EngineMemory scratch(data);
    const auto make = [&](const char* name, const RemoteOptions& remote) {
      return KdnStore::Create(name, remote, node_, data, source);
    };
    KDN_ASSIGN_OR_RETURN(const auto tcp, make("kdn tcp", {.bulk = true, .shared_memory = false}));
    KDN_ASSIGN_OR_RETURN(const auto shared, make("kdn shared memory", {.bulk = true, .shared_memory = true}));
    KDN_ASSIGN_OR_RETURN(const auto grpc, make("kdn grpc", {.bulk = false, .shared_memory = false}));
    RedisSet set("redis set", redis_, data, source, 1);
    RedisSet pipelined("redis set pipelined", redis_, data, source, kRedisInFlight);
    for (KdnStore* contender : {tcp.get(), shared.get(), grpc.get()}) KDN_RETURN_IF_ERROR(contender->Check(scratch));
    for (RedisSet* contender : {&set, &pipelined}) KDN_RETURN_IF_ERROR(contender->Check());

    const std::vector<Contender*> contenders = {tcp.get(), &set, shared.get(), &pipelined, grpc.get()};
    KDN_RETURN_IF_ERROR(RunRounds(contenders, data, options_.rounds, /*calls=*/0));

    for (const Contender* contender : contenders) {
      nlohmann::json row = contender->Row(kib);
      row.erase("p50_us");
      row.erase("p99_us");
      report_.AddRow(std::move(row));
    }
    comparisons_.push_back({{"slab", SizeName(kib)},
                            {"tcp ÷ redis set", tcp->Gbps() / set.Gbps()},
                            {"tcp ÷ pipelined", tcp->Gbps() / pipelined.Gbps()},
                            {"tcp ÷ grpc", tcp->Gbps() / grpc->Gbps()},
                            {"shared ÷ redis set", shared->Gbps() / set.Gbps()},
                            {"shared ÷ pipelined", shared->Gbps() / pipelined.Gbps()},
                            {"cpu, tcp ÷ redis", tcp->Cpu() / std::min(set.Cpu(), pipelined.Cpu())}});
    report_.AddGoal({.name = fmt::format("store over TCP ÷ Redis at {}", SizeName(kib)),
                     .value = tcp->Gbps() / std::max(set.Gbps(), pipelined.Gbps()),
                     .unit = "×",
                     .goal = 1.2,
                     .better = Better::kHigher});
    return absl::OkStatus();
  }

  // The rows that compare, below all that are compared.
  void AddComparisons() {
    for (nlohmann::json& row : comparisons_) report_.AddRow(std::move(row));
    comparisons_.clear();
  }

 private:
  const Options& options_;
  const NodeProcess& node_;
  RedisPeer& redis_;
  Report& report_;
  std::vector<nlohmann::json> comparisons_;
};

absl::Status Run(const Options& options, Report& report) {
  KDN_ASSIGN_OR_RETURN(const NodeProcess node, NodeProcess::Start(options.node));
  KDN_ASSIGN_OR_RETURN(RedisPeer redis, RedisPeer::Start());
  StoreBench bench(options, node, redis, report);
  for (const uint64_t kib : options.kib) {
    if (const absl::Status status = bench.Measure(kib); !status.ok()) return Annotate(status, SizeName(kib));
  }
  bench.AddComparisons();
  report.SetFact("rounds", options.rounds);
  report.SetFact("mib_by_size", options.mib);
  report.SetFact("redis_in_flight", kRedisInFlight);
  report.SetFact("compared",
                 "one client thread, one connection each; kdn: codec raw, acknowledged in memory, checksums computed; "
                 "redis: the better of its two ways counts; all into an empty server; processor time: user and system "
                 "of all threads, over all rounds");
  return absl::OkStatus();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) {
  kdn::bench::Options options;
  CLI::App app("Store into a node's memory, beside Redis SET.");
  app.add_option("--node", options.node, "The kdn-node to measure")->capture_default_str();
  app.add_option("--mib", options.mib, "MiB of data of each size")->capture_default_str()->check(CLI::Range(16, 1024));
  app.add_option("--rounds", options.rounds, "Interleaved rounds")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--kib", options.kib, "Sizes of slabs in KiB, powers of two")->check(CLI::Range(64, 65536));
  CLI11_PARSE(app, argc, argv);

  kdn::bench::Report report("store");
  if (const absl::Status status = kdn::bench::Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench store: {}\n", kdn::MessageOf(status));
    return 1;
  }
  return report.Finish();
}
