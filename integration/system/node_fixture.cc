#include "integration/system/node_fixture.h"

#include <random>
#include <sstream>

namespace kdn {
namespace {

constexpr uint32_t kLayers = 2;
constexpr uint32_t kHeads = 4;
constexpr uint32_t kDim = 32;
constexpr size_t kTokenBytes = size_t{kHeads} * kDim * 2;

}  // namespace

void NodeFixture::StartNode(const std::vector<std::string>& flags) {
  const std::filesystem::path port_file = directory_.path() / "ports";
  std::filesystem::remove(port_file);
  std::vector<std::string> argv = {KDN_NODE_PATH,
                                   "--listen",
                                   "127.0.0.1:0",
                                   "--metrics-listen",
                                   "",
                                   "--port-file",
                                   port_file.string(),
                                   "--disk-path",
                                   (directory_.path() / "disk").string()};
  argv.insert(argv.end(), flags.begin(), flags.end());
  absl::StatusOr<ChildProcess> node = ChildProcess::Start(argv, (directory_.path() / "node.log").string());
  ASSERT_TRUE(node.ok()) << node.status();
  node_ = *std::move(node);
  absl::StatusOr<std::string> ports = WaitForFile(port_file, absl::Seconds(20), *node_);
  ASSERT_TRUE(ports.ok()) << ports.status();
  std::istringstream(*ports) >> target_;
}

void NodeFixture::StopNode() {
  EXPECT_EQ(node_->Stop(absl::Seconds(20)), 0);
  node_.reset();
}

std::unique_ptr<Client> NodeFixture::NewClient() const {
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(SmallSpace(), MakeRemoteTransport(target_));
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

KvSpace SmallSpace() {
  KvSpace space;
  space.model_id = "kdn/system-test";
  space.weights_revision = "1";
  space.dtype = DType::kBf16;
  space.layers = {{.count = kLayers,
                   .kv_heads = kHeads,
                   .k_dim = kDim,
                   .v_dim = kDim,
                   .rope = {.kind = RopeKind::kHalfSplit, .rotary_dim = kDim, .theta = 10000}}};
  return space;
}

PromptMemory::PromptMemory(uint32_t tokens)
    : storage_(size_t{2} * kLayers, std::vector<uint8_t>(tokens * kTokenBytes)) {
  view_.capacity_tokens = tokens;
  for (size_t slab = 0; slab < storage_.size(); ++slab) {
    (slab % 2 == 0 ? view_.k : view_.v).push_back(storage_[slab].data());
  }
}

PromptMemory::PromptMemory(uint32_t tokens, uint64_t seed) : PromptMemory(tokens) {
  std::mt19937_64 random(seed);
  for (std::vector<uint8_t>& slab : storage_) {
    for (uint8_t& byte : slab) byte = static_cast<uint8_t>(random());
  }
}

std::string PromptMemory::Bytes(uint32_t begin, uint32_t count) const {
  std::string bytes;
  for (const std::vector<uint8_t>& slab : storage_) {
    bytes.append(reinterpret_cast<const char*>(slab.data()) + begin * kTokenBytes, count * kTokenBytes);
  }
  return bytes;
}

std::vector<Token> MakeTokens(uint32_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(random() % 50000);
  return tokens;
}

}  // namespace kdn
