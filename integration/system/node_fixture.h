// NodeFixture: a real kdn-node process on loopback, and KV of a small space to put into it.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_SYSTEM_NODE_FIXTURE_H_
#define KDN_INTEGRATION_SYSTEM_NODE_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "integration/process/child_process.h"
#include "kdn-client/client.h"

namespace kdn {

class NodeFixture : public testing::Test {
 protected:
  // Starts kdn-node on the fixture's disk, with `flags` besides those that place it, and waits until it serves.
  void StartNode(const std::vector<std::string>& flags = {});
  // SIGTERM; expects a clean exit.
  void StopNode();

  std::unique_ptr<Client> NewClient() const;
  const std::string& target() const { return target_; }

  TemporaryDirectory directory_{"kdn-system-"};
  std::optional<ChildProcess> node_;
  std::string target_;
};

// A space of 2 layers with 4 KV heads of 32 in bf16: a whole chunk of 256 tokens has four slabs of 64 KiB.
KvSpace SmallSpace();

// KV for `tokens` tokens of SmallSpace, reproducible from `seed`.
class PromptMemory {
 public:
  explicit PromptMemory(uint32_t tokens);
  PromptMemory(uint32_t tokens, uint64_t seed);

  const ContiguousKv& view() const { return view_; }
  // The bytes of the tokens [begin, begin + count), layer by layer, K before V.
  std::string Bytes(uint32_t begin, uint32_t count) const;

 private:
  std::vector<std::vector<uint8_t>> storage_;
  ContiguousKv view_;
};

// `count` tokens, reproducible from `seed`.
std::vector<Token> MakeTokens(uint32_t count, uint64_t seed);

}  // namespace kdn

#endif  // KDN_INTEGRATION_SYSTEM_NODE_FIXTURE_H_
