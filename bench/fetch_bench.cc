// What a fetch from a node's memory costs, by size of slab, over gRPC on loopback: throughput of one call for many
// slabs, and latency of one call for one slab. Beside it, in turn and in the same run: Redis GET of values of the same
// size, one by one and pipelined, and one iperf3 stream.
//
// All have one client thread and one connection. "client" is what an engine gets: every slab's checksum verified and
// its bytes in engine memory. "transport" is the same bytes left where gRPC put them, as a Redis GET leaves its value
// in a reply object. The goals compare "client", with all its work, to the better of Redis's two ways.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "bench/network_peers.h"
#include "bench/report.h"
#include "integration/process/child_process.h"
#include "kdn-client/client.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr uint64_t kKiB = 1024;
constexpr uint32_t kChunkTokens = 256;
constexpr absl::Duration kDeadline = absl::Seconds(60);
constexpr size_t kRedisInFlight = 16;

struct Options {
  std::string node = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../kdn-node/kdn-node").string();
  uint64_t mib = 128;  // of each size
  int rounds = 7;
  int calls = 100;  // one-slab calls in a round
  std::vector<uint64_t> kib = {64, 256, 1024, 4096, 16384};
};

// Seconds that `action` takes.
template <typename Action>
absl::StatusOr<double> Timed(Action&& action) {
  const absl::Time begin = absl::Now();
  KDN_RETURN_IF_ERROR(action());
  return absl::ToDoubleSeconds(absl::Now() - begin);
}

// Slabs of one size: K only, so that a layer is a slab.
class Dataset {
 public:
  Dataset(uint64_t slab_bytes, uint64_t total_bytes) : slab_bytes_(slab_bytes) {
    constexpr uint64_t kChunkBytes = uint64_t{16} << 20;
    const uint64_t row_values = slab_bytes / (uint64_t{2} * kChunkTokens);
    const uint64_t heads = std::min<uint64_t>(std::max<uint64_t>(row_values / 128, 1), 64);
    const uint64_t layers = std::clamp<uint64_t>(kChunkBytes / slab_bytes, 1, 32);
    space_.model_id = "bench/fetch";
    space_.weights_revision = std::to_string(slab_bytes);
    space_.chunk_tokens = kChunkTokens;
    space_.layers = {{.count = static_cast<uint32_t>(layers),
                      .kv_heads = static_cast<uint32_t>(heads),
                      .k_dim = static_cast<uint32_t>(row_values / heads),
                      .v_dim = 0,
                      .stored = StoredKind::kKOnly,
                      .rope = {}}};
    const uint64_t chunks = std::max<uint64_t>(total_bytes / (slab_bytes * layers), 1);
    tokens_.resize(chunks * kChunkTokens);
  }

  const KvSpace& space() const { return space_; }
  const std::vector<Token>& tokens() const { return tokens_; }
  uint32_t layers() const { return space_.layers[0].count; }
  size_t chunks() const { return tokens_.size() / kChunkTokens; }
  uint64_t slab_bytes() const { return slab_bytes_; }
  uint64_t slabs() const { return chunks() * layers(); }
  uint64_t bytes() const { return slabs() * slab_bytes_; }

 private:
  const uint64_t slab_bytes_;
  KvSpace space_;
  std::vector<Token> tokens_;
};

class Memory {
 public:
  explicit Memory(const Dataset& data) {
    view_.capacity_tokens = static_cast<uint32_t>(data.tokens().size());
    view_.v.resize(data.layers());
    for (uint32_t i = 0; i < data.layers(); ++i) layers_.emplace_back(data.chunks() * data.slab_bytes());
    for (std::vector<uint8_t>& layer : layers_) view_.k.push_back(layer.data());
  }

  void FillWithNoise() {
    std::mt19937_64 random(1);
    for (std::vector<uint8_t>& layer : layers_) {
      for (size_t i = 0; i < layer.size(); i += 8) {
        const uint64_t value = random();
        std::copy_n(reinterpret_cast<const uint8_t*>(&value), 8, layer.data() + i);
      }
    }
  }

  const ContiguousKv& view() const { return view_; }
  std::span<const uint8_t> Slab(uint64_t index, uint64_t slab_bytes) const {
    const uint64_t layer = index % layers_.size();
    return std::span(layers_[layer]).subspan(index / layers_.size() * slab_bytes, slab_bytes);
  }
  friend bool operator==(const Memory& a, const Memory& b) { return a.layers_ == b.layers_; }

 private:
  std::vector<std::vector<uint8_t>> layers_;
  ContiguousKv view_;
};

// Counts bytes and leaves them where they are.
class CountingSink final : public SlabSink {
 public:
  bool OnChunk(size_t, const ManifestPtr&, TierKind) override { return true; }
  void OnPart(size_t, uint32_t, uint64_t, ByteSpan part) override { bytes += part.size(); }
  void OnMiss(size_t, const Miss&) override {}

  uint64_t bytes = 0;
};

// One way to get slabs: all of them as fast as it can, and one by one.
class Contender {
 public:
  explicit Contender(std::string name) : name_(std::move(name)) {}
  virtual ~Contender() = default;

  const std::string& name() const { return name_; }
  virtual absl::Status All() = 0;
  virtual bool has_single() const { return true; }
  virtual absl::Status One(uint64_t slab) = 0;

  std::vector<double> gbps;     // by round
  std::vector<double> seconds;  // by one-slab call

 private:
  const std::string name_;
};

absl::Status ExpectBytes(uint64_t got, uint64_t wanted) {
  if (got == wanted) return absl::OkStatus();
  return DataLoss("{} bytes came, {} were asked for", got, wanted);
}

class ClientContender final : public Contender {
 public:
  ClientContender(Client& client, const Dataset& data, std::span<const ChunkRef> chunks, const Memory& source)
      : Contender("kdn client"), client_(client), data_(data), chunks_(chunks), source_(source), destination_(data) {}

  absl::Status All() override { return Fetch(chunks_, {}); }
  absl::Status One(uint64_t slab) override {
    const auto layer = static_cast<uint32_t>(slab % data_.layers());
    return Fetch(chunks_.subspan(slab / data_.layers(), 1), {.begin = layer, .end = layer + 1});
  }

  absl::Status CheckBytes() const {
    if (destination_ == source_) return absl::OkStatus();
    return DataLoss("what was fetched is not what was stored");
  }

 private:
  absl::Status Fetch(std::span<const ChunkRef> chunks, LayerRange layers) {
    KDN_ASSIGN_OR_RETURN(const FetchReport report,
                         client_.Fetch(chunks, destination_.view(), {.deadline = kDeadline, .layers = layers}));
    if (report.AllReady()) return absl::OkStatus();
    return DataLoss("chunk {}: {}", report.ready, report.chunks[report.ready].miss.detail);
  }

  Client& client_;
  const Dataset& data_;
  const std::span<const ChunkRef> chunks_;
  const Memory& source_;
  Memory destination_;
};

class TransportContender final : public Contender {
 public:
  TransportContender(Transport& transport, const SpaceId& space, const Dataset& data, std::span<const ChunkRef> chunks)
      : Contender("kdn transport"), transport_(transport), space_(space), data_(data) {
    for (const ChunkRef& chunk : chunks) keys_.push_back(chunk.key);
  }

  absl::Status All() override { return Fetch(keys_, {}, data_.bytes()); }
  absl::Status One(uint64_t slab) override {
    const auto layer = static_cast<uint32_t>(slab % data_.layers());
    return Fetch(std::span(keys_).subspan(slab / data_.layers(), 1), {.begin = layer, .end = layer + 1},
                 data_.slab_bytes());
  }

 private:
  absl::Status Fetch(std::span<const ChunkKey> keys, LayerRange layers, uint64_t bytes) {
    CountingSink sink;
    KDN_RETURN_IF_ERROR(
        transport_.Fetch({.space = space_, .keys = keys, .layers = layers}, absl::Now() + kDeadline, sink));
    return ExpectBytes(sink.bytes, bytes);
  }

  Transport& transport_;
  const SpaceId space_;
  const Dataset& data_;
  std::vector<ChunkKey> keys_;
};

class RedisContender final : public Contender {
 public:
  RedisContender(std::string name, RedisPeer& redis, const Dataset& data, size_t in_flight)
      : Contender(std::move(name)), redis_(redis), data_(data), in_flight_(in_flight) {}

  absl::Status All() override {
    KDN_ASSIGN_OR_RETURN(const uint64_t bytes, redis_.GetAll(data_.slabs(), in_flight_));
    return ExpectBytes(bytes, data_.bytes());
  }
  bool has_single() const override { return in_flight_ == 1; }
  absl::Status One(uint64_t slab) override {
    KDN_ASSIGN_OR_RETURN(const uint64_t bytes, redis_.Get(slab));
    return ExpectBytes(bytes, data_.slab_bytes());
  }

 private:
  RedisPeer& redis_;
  const Dataset& data_;
  const size_t in_flight_;
};

absl::Status Measure(Contender& contender, const Dataset& data, int calls, std::mt19937& random) {
  KDN_ASSIGN_OR_RETURN(const double seconds, Timed([&] { return contender.All(); }));
  contender.gbps.push_back(static_cast<double>(data.bytes()) / seconds / 1e9);
  if (!contender.has_single()) return absl::OkStatus();
  std::uniform_int_distribution<uint64_t> any(0, data.slabs() - 1);
  for (int i = 0; i < calls; ++i) {
    const uint64_t slab = any(random);
    KDN_ASSIGN_OR_RETURN(const double one, Timed([&] { return contender.One(slab); }));
    contender.seconds.push_back(one);
  }
  return absl::OkStatus();
}

std::string SizeName(uint64_t kib) {
  return kib < kKiB ? fmt::format("{} KiB", kib) : fmt::format("{} MiB", kib / kKiB);
}

void AddRows(Report& report, uint64_t kib, const Contender& contender) {
  nlohmann::json row = {{"slab", SizeName(kib)}, {"peer", contender.name()}, {"gbps", Quantile(contender.gbps, 0.5)}};
  row["p50_us"] = contender.has_single() ? nlohmann::json(1e6 * Quantile(contender.seconds, 0.5)) : "";
  row["p99_us"] = contender.has_single() ? nlohmann::json(1e6 * Quantile(contender.seconds, 0.99)) : "";
  report.AddRow(std::move(row));
}

class FetchBench {
 public:
  FetchBench(const Options& options, const std::string& target, RedisPeer redis, Report& report)
      : options_(options), transport_(MakeRemoteTransport(target)), redis_(std::move(redis)), report_(report) {}

  absl::Status MeasureSize(uint64_t kib) {
    const Dataset data(kib * kKiB, options_.mib << 20);
    KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(data.space(), transport_));
    KDN_ASSIGN_OR_RETURN(const std::vector<ChunkRef> chunks,
                         ChunkChain(client->space_id(), kChunkTokens, data.tokens()));
    Memory source(data);
    source.FillWithNoise();
    KDN_RETURN_IF_ERROR(Store(*client, chunks, source, data));

    ClientContender by_client(*client, data, chunks, source);
    TransportContender by_transport(*transport_, client->space_id(), data, chunks);
    RedisContender redis_get("redis get", redis_, data, 1);
    RedisContender redis_pipelined("redis get pipelined", redis_, data, kRedisInFlight);
    const std::vector<Contender*> contenders = {&by_client, &redis_get, &by_transport, &redis_pipelined};
    for (Contender* contender : contenders) KDN_RETURN_IF_ERROR(contender->All());  // to warm up
    KDN_RETURN_IF_ERROR(by_client.CheckBytes());
    for (int round = 0; round < options_.rounds; ++round) {
      for (Contender* contender : contenders) {
        KDN_RETURN_IF_ERROR(Measure(*contender, data, options_.calls, random_));
      }
    }

    for (const Contender* contender : contenders) AddRows(report_, kib, *contender);
    const double redis = std::max(Quantile(redis_get.gbps, 0.5), Quantile(redis_pipelined.gbps, 0.5));
    report_.AddGoal({.name = fmt::format("fetch ÷ Redis GET at {}", SizeName(kib)),
                     .value = Quantile(by_client.gbps, 0.5) / redis,
                     .unit = "×",
                     .goal = 1.0,
                     .better = Better::kHigher});
    return Clear(*client, chunks);
  }

 private:
  absl::Status Store(Client& client, std::span<const ChunkRef> chunks, const Memory& source, const Dataset& data) {
    KDN_ASSIGN_OR_RETURN(const StoreReport stored,
                         client.Store(chunks, source.view(), {.deadline = kDeadline, .codec = "raw"}));
    for (const absl::Status& status : stored.chunks) KDN_RETURN_IF_ERROR(status);
    for (uint64_t i = 0; i < data.slabs(); ++i) {
      KDN_RETURN_IF_ERROR(redis_.Set(i, source.Slab(i, data.slab_bytes())));
    }
    return absl::OkStatus();
  }

  absl::Status Clear(Client& client, std::span<const ChunkRef> chunks) {
    std::vector<ChunkKey> keys;
    for (const ChunkRef& chunk : chunks) keys.push_back(chunk.key);
    KDN_RETURN_IF_ERROR(client.Delete(keys, kDeadline).status());
    return redis_.Clear();
  }

  const Options& options_;
  const std::shared_ptr<Transport> transport_;
  RedisPeer redis_;
  Report& report_;
  std::mt19937 random_{1};
};

absl::Status Run(const Options& options, Report& report) {
  const TemporaryDirectory directory("kdn-fetch-bench-");
  const std::string port_file = directory.path() / "port";
  KDN_ASSIGN_OR_RETURN(ChildProcess node,
                       ChildProcess::Start({options.node, "--listen", "127.0.0.1:0", "--metrics-listen", "",
                                            "--port-file", port_file, "--memory-bytes", "4GiB"}));
  KDN_ASSIGN_OR_RETURN(std::string target, WaitForFile(port_file, absl::Seconds(30), node));
  target.erase(target.find_last_not_of('\n') + 1);
  KDN_ASSIGN_OR_RETURN(RedisPeer redis, RedisPeer::Start());

  std::vector<double> iperf3;
  FetchBench bench(options, target, std::move(redis), report);
  for (const uint64_t kib : options.kib) {
    KDN_RETURN_IF_ERROR(bench.MeasureSize(kib));
    KDN_ASSIGN_OR_RETURN(const double gbps, RunIperf3(absl::Seconds(1)));
    iperf3.push_back(gbps);
  }
  report.AddRow({{"peer", "iperf3, one stream"}, {"gbps", Quantile(iperf3, 0.5)}});
  report.SetFact("rounds", options.rounds);
  report.SetFact("mib_by_size", options.mib);
  report.SetFact("redis_in_flight", kRedisInFlight);
  report.SetFact("compared",
                 "one client thread, one connection each; kdn client: checksums verified, bytes in engine memory; kdn "
                 "transport: bytes in gRPC's buffers; redis: bytes in hiredis reply objects; goals: kdn client by the "
                 "better of redis get and redis get pipelined");
  return absl::OkStatus();
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) {
  kdn::bench::Options options;
  CLI::App app("Fetch from a node's memory over gRPC on loopback, beside Redis GET and iperf3.");
  app.add_option("--node", options.node, "The kdn-node to measure")->capture_default_str();
  app.add_option("--mib", options.mib, "MiB of data of each size")->capture_default_str()->check(CLI::Range(16, 1024));
  app.add_option("--rounds", options.rounds, "Interleaved rounds")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--calls", options.calls, "One-slab calls a round")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--kib", options.kib, "Sizes of slabs in KiB, powers of two")->check(CLI::Range(64, 65536));
  CLI11_PARSE(app, argc, argv);

  kdn::bench::Report report("fetch");
  if (const absl::Status status = kdn::bench::Run(options, report); !status.ok()) {
    fmt::print(stderr, "bench fetch: {}\n", kdn::MessageOf(status));
    return 1;
  }
  return report.Finish();
}
