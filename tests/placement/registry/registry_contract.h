// The contract of placement/registry/registry.h as tests, for every backend. A test binary lists registry_contract.cc
// among its sources and says which backends it has:
//
//   INSTANTIATE_TEST_SUITE_P(Memory, RegistryContract, testing::Values(&MakeMemoryBackend));
#ifndef KDN_TESTS_PLACEMENT_REGISTRY_REGISTRY_CONTRACT_H_
#define KDN_TESTS_PLACEMENT_REGISTRY_REGISTRY_CONTRACT_H_

#include <memory>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "placement/registry/registry.h"

namespace kdn {

class RegistryBackend {
 public:
  virtual ~RegistryBackend() = default;
  virtual Registry& registry() = 0;
  // Lets some of the registry's time pass.
  virtual void Pass(absl::Duration time) = 0;
};

using MakeRegistryBackend = std::unique_ptr<RegistryBackend> (*)();

class RegistryContract : public testing::TestWithParam<MakeRegistryBackend> {
 protected:
  RegistryContract() : backend_(GetParam()()) {}

  Registry& registry() { return backend_->registry(); }

  const std::unique_ptr<RegistryBackend> backend_;
};

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_REGISTRY_REGISTRY_CONTRACT_H_
