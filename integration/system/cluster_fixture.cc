#include "integration/system/cluster_fixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "integration/system/node_fixture.h"
#include "placement/topology/topology_wire.h"

namespace kdn {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(1);
constexpr absl::Duration kPoll = absl::Milliseconds(50);

std::string ReadAll(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Adds `flags`, each a name and a value, in place of those of the same name.
void SetFlags(const std::vector<std::string>& flags, std::vector<std::string>& argv) {
  for (size_t i = 0; i + 1 < flags.size(); i += 2) {
    if (const auto it = std::ranges::find(argv, flags[i]); it != argv.end()) argv.erase(it, it + 2);
    argv.insert(argv.end(), {flags[i], flags[i + 1]});
  }
}

}  // namespace

void ClusterFixture::Daemon::Stop() {
  EXPECT_EQ(process->Stop(absl::Seconds(30)), 0) << name;
  process.reset();
}

void ClusterFixture::Start(Daemon& daemon) {
  const std::filesystem::path port_file = daemon.directory / "ports";
  std::filesystem::remove(port_file);
  std::vector<std::string> argv = daemon.argv;
  const auto add = [&](const char* flag, const std::string& address) {
    argv.emplace_back(flag);
    argv.push_back(address.empty() ? "127.0.0.1:0" : address);
  };
  add("--listen", daemon.address);
  add("--metrics-listen", daemon.metrics_address);
  argv.insert(argv.end(), {"--port-file", port_file.string()});
  absl::StatusOr<ChildProcess> process = ChildProcess::Start(argv, (daemon.directory / "log").string());
  ASSERT_TRUE(process.ok()) << process.status();
  daemon.process = *std::move(process);
  absl::StatusOr<std::string> ports = WaitForFile(port_file, kPatience, *daemon.process);
  ASSERT_TRUE(ports.ok()) << daemon.name << ": " << ports.status() << "\n" << ReadAll(daemon.directory / "log");
  std::istringstream(*ports) >> daemon.address >> daemon.metrics_address;
}

void ClusterFixture::StartEtcd(size_t members) {
  absl::StatusOr<std::unique_ptr<EtcdCluster>> etcd = EtcdCluster::Start(members);
  ASSERT_TRUE(etcd.ok()) << etcd.status();
  etcd_ = *std::move(etcd);
}

void ClusterFixture::StartPlacements(int count, const std::vector<std::string>& flags) {
  for (int i = 0; i < count; ++i) {
    Daemon& daemon = placements_.emplace_back();
    daemon.name = fmt::format("placement-{}", placements_.size() - 1);
    daemon.directory = directory_.path() / daemon.name;
    std::filesystem::create_directories(daemon.directory);
    daemon.argv = {KDN_PLACEMENT_PATH, "--settle", "500ms", "--partition-bits", "8"};
    if (etcd_ != nullptr) {
      daemon.argv.insert(daemon.argv.end(),
                         {"--registry", "etcd", "--etcd", fmt::format("{}", fmt::join(etcd_->endpoints(), ","))});
    } else {
      daemon.argv.insert(daemon.argv.end(), {"--data-dir", (daemon.directory / "registry").string()});
    }
    SetFlags(flags, daemon.argv);
    ASSERT_NO_FATAL_FAILURE(Start(daemon));
  }
}

void ClusterFixture::StartNodes(int count, const std::vector<std::string>& flags) {
  for (int i = 0; i < count; ++i) {
    const size_t index = nodes_.size();
    Daemon& daemon = nodes_.emplace_back();
    daemon.name = fmt::format("node-{}", index);
    daemon.directory = directory_.path() / daemon.name;
    std::filesystem::create_directories(daemon.directory);
    daemon.argv = {KDN_NODE_PATH,
                   "--placement",
                   fmt::format("{}", fmt::join(PlacementAddresses(), ",")),
                   "--node-id",
                   daemon.name,
                   "--disk-path",
                   (daemon.directory / "disk").string(),
                   "--disk-bytes",
                   "4GiB",
                   "--memory-bytes",
                   "64MiB",
                   "--anti-entropy-interval",
                   "2s"};
    SetFlags(flags, daemon.argv);
    ASSERT_NO_FATAL_FAILURE(Start(daemon));
  }
}

std::vector<std::string> ClusterFixture::PlacementAddresses() const {
  std::vector<std::string> addresses;
  for (const Daemon& daemon : placements_) addresses.push_back(daemon.address);
  return addresses;
}

std::shared_ptr<PlacementChannel> ClusterFixture::Placement() const {
  auto channel = PlacementChannel::Open(PlacementAddresses());
  EXPECT_TRUE(channel.ok()) << channel.status();
  return *std::move(channel);
}

std::shared_ptr<ClusterTransport> ClusterFixture::NewTransport(const std::string& zone) const {
  std::shared_ptr<TopologySource> source = FollowTopology(Placement());
  EXPECT_NE(source->AwaitNewer(0, absl::Now() + kPatience), nullptr);
  return MakeClusterTransport(std::move(source), {.zone = zone});
}

v1::ListNodesResponse ClusterFixture::ListNodes() const {
  v1::ListNodesResponse nodes;
  const absl::Status status = Placement()->ListNodes({}, absl::Now() + absl::Seconds(10), nodes);
  EXPECT_TRUE(status.ok()) << status;
  return nodes;
}

void ClusterFixture::AwaitSettled(int active) const {
  const absl::Time deadline = absl::Now() + kPatience;
  v1::ListNodesResponse nodes;
  while (absl::Now() < deadline) {
    nodes = ListNodes();
    const bool settled = std::ranges::all_of(nodes.nodes(), [](const v1::NodeStatus& node) {
      const bool is_active = node.node().state() == v1::NODE_STATE_ACTIVE;
      return node.filling_partitions() == 0 && node.leaving_partitions() == 0 &&
             (is_active || node.owned_partitions() == 0);
    });
    const auto up = std::ranges::count_if(nodes.nodes(), [](const v1::NodeStatus& node) {
      return node.node().state() == v1::NODE_STATE_ACTIVE && node.owned_partitions() > 0;
    });
    if (settled && up == active) return;
    absl::SleepFor(kPoll);
  }
  ADD_FAILURE() << "not settled with " << active << " active nodes: " << nodes.ShortDebugString();
}

void ClusterFixture::AwaitState(const std::string& id, v1::NodeState state) const {
  const absl::Time deadline = absl::Now() + kPatience;
  v1::ListNodesResponse nodes;
  while (absl::Now() < deadline) {
    nodes = ListNodes();
    for (const v1::NodeStatus& node : nodes.nodes()) {
      if (node.node().id() == id && node.node().state() == state) return;
    }
    absl::SleepFor(kPoll);
  }
  ADD_FAILURE() << id << " is not " << v1::NodeState_Name(state) << ": " << nodes.ShortDebugString();
}

double ClusterFixture::Metric(const Daemon& daemon, const std::string& name) const {
  const std::filesystem::path file = daemon.directory / "metrics";
  std::filesystem::remove(file);
  auto curl = ChildProcess::Start({"curl", "-sS", "http://" + daemon.metrics_address + "/metrics"}, file.string());
  EXPECT_TRUE(curl.ok()) << curl.status();
  const absl::StatusOr<int> exit_code = curl->Wait(absl::Seconds(20));
  EXPECT_TRUE(exit_code.ok() && *exit_code == 0) << ReadAll(file);
  double sum = 0;
  bool found = false;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(name, 0) != 0 || (line[name.size()] != '{' && line[name.size()] != ' ')) continue;
    sum += std::stod(line.substr(line.rfind(' ')));
    found = true;
  }
  EXPECT_TRUE(found) << daemon.name << " has no metric " << name;
  return sum;
}

std::string ClusterFixture::WhereIs(uint64_t number) const {
  const Document document(number);
  const SpaceId space = *ComputeSpaceId(Document::Space());
  std::string text = fmt::format("; at {} document {}",
                                 absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone()), number);
  v1::TopologyUpdate update;
  const absl::Status status = Placement()->GetTopology({}, absl::Now() + absl::Seconds(5), update);
  const absl::StatusOr<TopologyPtr> topology = ApplyUpdate(nullptr, update);
  if (!status.ok() || !topology.ok()) return text + ": no topology";
  text += fmt::format(", epoch {}", (*topology)->epoch());
  for (size_t i = 0; i < document.chunks().size(); ++i) {
    const ChunkKey& key = document.chunks()[i].key;
    const Partition partition = (*topology)->PartitionOf(key);
    const Move* move = (*topology)->MoveOf(partition);
    std::string line;
    bool lacks = false;
    for (const NodeSlot slot : (*topology)->Owners(partition)) {
      const NodeInfo* node = (*topology)->NodeAt(slot);
      if (node == nullptr) continue;
      const auto held = MakeRemoteTransport(node->address, {.shared_memory = false})
                            ->Lookup(space, {&key, 1}, Fidelity::kExact, absl::Now() + absl::Seconds(2));
      const bool holds = held.ok() && (*held)[0].miss.reason == MissReason::kNone;
      lacks = lacks || !holds;
      const bool filling = move != nullptr && std::ranges::count(move->filling, slot) > 0;
      line += fmt::format(" {} ({}{}, {})", node->id, NodeStateName(node->state), filling ? ", filling" : "",
                          holds       ? "holds it"
                          : held.ok() ? "lacks it"
                                      : "is away");
    }
    if (lacks) text += fmt::format("; chunk {} {} owners:{}", i, key.ToShortHex(), line);
  }
  return text;
}

void ClusterFixture::PrintLogs() const {
  for (const std::vector<Daemon>* daemons : {&placements_, &nodes_}) {
    for (const Daemon& daemon : *daemons) {
      std::cerr << "---- " << daemon.name << "\n" << ReadAll(daemon.directory / "log");
    }
  }
}

void ClusterFixture::TearDown() {
  if (HasFailure()) PrintLogs();
  // At once, where stopping would have each of them hand over to the others.
  for (std::vector<Daemon>* daemons : {&nodes_, &placements_}) {
    for (Daemon& daemon : *daemons) {
      if (daemon.Running()) daemon.Kill();
    }
  }
}

KvSpace Document::Space() {
  KvSpace space = SmallSpace();
  space.model_id = "kdn/cluster-test";
  space.chunk_tokens = kChunkTokens;
  return space;
}

Document::Document(uint64_t number) : number_(number), tokens_(MakeTokens(kTokens, number)) {
  absl::StatusOr<std::vector<ChunkRef>> chunks = ChunkChain(*ComputeSpaceId(Space()), kChunkTokens, tokens_);
  chunks_ = *std::move(chunks);
}

bool Document::Store(Client& client, Ack ack, absl::Duration deadline) const {
  const PromptMemory kv(kTokens, number_);
  absl::StatusOr<StoreReport> report =
      client.Store(chunks_, kv.view(), {.deadline = deadline, .ack = ack, .codec = "raw"});
  return report.ok() && report->Stored() == chunks_.size();
}

Document::Outcome Document::Fetch(Client& client, absl::Duration deadline, std::string* why) const {
  const absl::Time end = absl::Now() + deadline;
  const PrefixHit hit = client.LookupPrefix(tokens_, {.deadline = deadline});
  if (hit.hits != kChunks && why != nullptr) {
    *why = fmt::format("lookup: {} of {} chunks: {}: {}", hit.hits, kChunks, MissReasonName(hit.stopped_by.reason),
                       hit.stopped_by.detail);
  }
  const PromptMemory kv(kTokens);
  absl::StatusOr<FetchReport> report =
      client.Fetch(hit.HitChunks(), kv.view(), {.deadline = std::max(end - absl::Now(), absl::ZeroDuration())});
  if (!report.ok()) return Outcome::kWrong;
  const PromptMemory expected(kTokens, number_);
  for (size_t i = 0; i < report->chunks.size(); ++i) {
    const ChunkRef& chunk = chunks_[i];
    if (report->chunks[i].miss.reason != MissReason::kNone) {
      if (why != nullptr) {
        *why =
            fmt::format("fetch: {}: {}", MissReasonName(report->chunks[i].miss.reason), report->chunks[i].miss.detail);
      }
      return Outcome::kPart;
    }
    if (kv.Bytes(chunk.first_token, chunk.tokens) != expected.Bytes(chunk.first_token, chunk.tokens)) {
      return Outcome::kWrong;
    }
  }
  return hit.hits == kChunks ? Outcome::kWhole : Outcome::kPart;
}

std::unique_ptr<Client> NewDocumentClient(std::shared_ptr<Transport> transport) {
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(Document::Space(), std::move(transport));
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

}  // namespace kdn
