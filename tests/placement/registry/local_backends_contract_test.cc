// The contract, for the backends that live in this process.
#include "integration/process/child_process.h"
#include "placement/registry/memory_registry.h"
#include "storage/base/steady_clock.h"
#include "tests/placement/registry/registry_contract.h"

namespace kdn {
namespace {

class MemoryBackend final : public RegistryBackend {
 public:
  Registry& registry() override { return *registry_; }
  void Pass(absl::Duration time) override {
    clock_.Advance(time);
    registry_->EndDueLeases();
  }

 private:
  ManualSteadyClock clock_;
  const std::unique_ptr<MemoryRegistry> registry_ = MakeTestRegistry(clock_);
};

class EmbeddedBackend final : public RegistryBackend {
 public:
  EmbeddedBackend() {
    absl::StatusOr<std::unique_ptr<Registry>> opened =
        OpenEmbeddedRegistry({.path = (directory_.path() / "registry").string()}, clock_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    registry_ = *std::move(opened);
  }
  Registry& registry() override { return *registry_; }
  void Pass(absl::Duration time) override {
    clock_.Advance(time);
    EXPECT_TRUE(registry_->Read("", absl::InfiniteFuture()).ok());  // which looks at the clock
  }

 private:
  TemporaryDirectory directory_{"kdn-registry-"};
  ManualSteadyClock clock_;
  std::unique_ptr<Registry> registry_;
};

template <typename Backend>
std::unique_ptr<RegistryBackend> Make() {
  return std::make_unique<Backend>();
}

INSTANTIATE_TEST_SUITE_P(Memory, RegistryContract, testing::Values(&Make<MemoryBackend>));
INSTANTIATE_TEST_SUITE_P(Embedded, RegistryContract, testing::Values(&Make<EmbeddedBackend>));

}  // namespace
}  // namespace kdn
