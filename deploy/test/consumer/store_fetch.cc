// store_fetch: the least that an engine does with KDN. Stores the KV cache of a made-up prompt, and fetches it again
// through a second client into other memory.
//
//   store_fetch node HOST:PORT               one node
//   store_fetch cluster HOST:PORT,...        all nodes of a cluster, by its placement daemons
//   store_fetch embedded DIRECTORY           no daemon: a store in this process
//   store_fetch --only fetch node HOST:PORT  fetches what an earlier run has stored; --only store
//
// Exit code 0: every byte came back; 1: it did not, and the reason is on standard error; 2: usage.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kdn-client/client.h"
#include "kdn-client/cluster/cluster_transport.h"
#include "placement/remote/placement_channel.h"
#include "placement/remote/topology_source.h"
#include "storage/tiered_store.h"

namespace {

constexpr uint32_t kLayers = 4, kHeads = 2, kDim = 64, kTokens = 1024;
constexpr size_t kTensorBytes = size_t{kTokens} * kHeads * kDim * 2;  // bf16

kdn::KvSpace ExampleSpace() {
  kdn::KvSpace space;
  space.model_id = "example/store_fetch";
  space.weights_revision = "1";
  space.dtype = kdn::DType::kBf16;
  kdn::LayerRun run;
  run.count = kLayers;
  run.kv_heads = kHeads;
  run.k_dim = run.v_dim = kDim;
  run.rope.kind = kdn::RopeKind::kHalfSplit;
  run.rope.rotary_dim = kDim;
  run.rope.theta = 10'000;
  space.layers = {run};
  return space;
}

// The KV cache of a sequence, contiguous by layer.
struct EngineMemory {
  std::vector<std::vector<uint8_t>> k, v;

  EngineMemory() : k(kLayers, std::vector<uint8_t>(kTensorBytes)), v(k) {}

  void Fill() {
    uint32_t state = 1;
    for (auto* tensors : {&k, &v}) {
      for (std::vector<uint8_t>& tensor : *tensors) {
        for (uint8_t& byte : tensor) byte = static_cast<uint8_t>((state = state * 1'664'525U + 1'013'904'223U) >> 24U);
      }
    }
  }

  kdn::ContiguousKv Layout() {
    kdn::ContiguousKv layout;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      layout.k.push_back(k[layer].data());
      layout.v.push_back(v[layer].data());
    }
    layout.capacity_tokens = kTokens;
    return layout;
  }
};

int Fail(const std::string& what) {
  std::fprintf(stderr, "store_fetch: %s\n", what.c_str());
  return 1;
}

absl::StatusOr<std::shared_ptr<kdn::Transport>> Connect(std::string_view kind, const std::string& where) {
  if (kind == "node") return kdn::MakeRemoteTransport(where);
  if (kind == "cluster") {
    std::vector<std::string> daemons;
    for (size_t begin = 0; begin <= where.size();) {
      const size_t comma = std::min(where.find(',', begin), where.size());
      daemons.push_back(where.substr(begin, comma - begin));
      begin = comma + 1;
    }
    absl::StatusOr<std::shared_ptr<kdn::PlacementChannel>> placement = kdn::PlacementChannel::Open(daemons);
    if (!placement.ok()) return placement.status();
    std::shared_ptr<kdn::TopologySource> topology = kdn::FollowTopology(*placement);
    // Until a daemon has answered every call fails; an engine would compute meanwhile.
    if (topology->AwaitNewer(0, absl::Now() + absl::Seconds(10)) == nullptr) return topology->Health();
    return kdn::MakeClusterTransport(std::move(topology));
  }
  kdn::TieredStoreOptions options;
  options.memory_bytes = uint64_t{64} << 20U;
  options.disks.resize(1);
  options.disks[0].path = where;
  options.disks[0].bytes = uint64_t{1} << 30U;
  absl::StatusOr<std::unique_ptr<kdn::TieredStore>> store = kdn::TieredStore::Open(options);
  if (!store.ok()) return store.status();
  return kdn::MakeEmbeddedTransport(*std::move(store));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  std::string only;
  if (words.size() == 4 && words[0] == "--only") {
    only = words[1];
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.size() != 2 || (words[0] != "node" && words[0] != "cluster" && words[0] != "embedded") ||
      (!only.empty() && only != "store" && only != "fetch")) {
    std::fprintf(stderr, "usage: store_fetch [--only store|fetch] node|cluster|embedded WHERE\n");
    return 2;
  }
  absl::StatusOr<std::shared_ptr<kdn::Transport>> transport = Connect(words[0], words[1]);
  if (!transport.ok()) return Fail(transport.status().ToString());

  std::vector<kdn::Token> prompt(kTokens);
  for (uint32_t i = 0; i < kTokens; ++i) prompt[i] = static_cast<kdn::Token>(i * 7 + 3);
  EngineMemory computed;
  computed.Fill();

  kdn::LookupOptions patient;
  patient.deadline = absl::Seconds(10);
  if (only != "fetch") {
    absl::StatusOr<std::unique_ptr<kdn::Client>> client = kdn::Client::Create(ExampleSpace(), *transport);
    if (!client.ok()) return Fail(client.status().ToString());
    const kdn::PrefixHit before = (*client)->LookupPrefix(prompt, patient);
    kdn::StoreOptions store;
    store.deadline = absl::Seconds(30);
    store.ack = kdn::Ack::kDurable;
    absl::StatusOr<kdn::StoreReport> stored = (*client)->Store(before.chunks, computed.Layout(), store);
    if (!stored.ok()) return Fail(stored.status().ToString());
    for (const absl::Status& chunk : stored->chunks) {
      if (!chunk.ok()) return Fail("not stored: " + chunk.ToString());
    }
    std::printf("stored %zu chunks, %llu bytes\n", stored->chunks.size(),
                static_cast<unsigned long long>(stored->encoded_bytes));
  }
  if (only != "store") {
    absl::StatusOr<std::unique_ptr<kdn::Client>> client = kdn::Client::Create(ExampleSpace(), *transport);
    if (!client.ok()) return Fail(client.status().ToString());
    const kdn::PrefixHit held = (*client)->LookupPrefix(prompt, patient);
    if (held.hits != held.chunks.size()) return Fail("not all is held: " + held.stopped_by.detail);
    EngineMemory fetched;
    kdn::FetchOptions fetch;
    fetch.deadline = absl::Seconds(30);
    absl::StatusOr<kdn::FetchReport> got = (*client)->Fetch(held.HitChunks(), fetched.Layout(), fetch);
    if (!got.ok()) return Fail(got.status().ToString());
    if (!got->AllReady()) return Fail("not all came: " + got->chunks[got->ready].miss.detail);
    if (fetched.k != computed.k || fetched.v != computed.v) return Fail("other bytes came back than were stored");
    std::printf("fetched %zu chunks, %llu bytes, as they were\n", got->chunks.size(),
                static_cast<unsigned long long>(got->raw_bytes));
  }
  return 0;
}
