// The contract, with an etcd process behind it.
#include "absl/time/clock.h"
#include "integration/process/etcd_cluster.h"
#include "tests/placement/registry/registry_contract.h"

namespace kdn {
namespace {

class EtcdBackend final : public RegistryBackend {
 public:
  EtcdBackend() {
    absl::StatusOr<std::unique_ptr<EtcdCluster>> etcd = EtcdCluster::Start(1);
    EXPECT_TRUE(etcd.ok()) << etcd.status();
    etcd_ = *std::move(etcd);
    // A call may take long on a busy machine; what a member that is away costs is tested elsewhere.
    absl::StatusOr<std::unique_ptr<Registry>> registry =
        ConnectEtcd({.endpoints = etcd_->endpoints(), .call_timeout = absl::Seconds(20)});
    EXPECT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
  }
  Registry& registry() override { return *registry_; }
  void Pass(absl::Duration) override {}  // it does by itself

 private:
  std::unique_ptr<EtcdCluster> etcd_;
  std::unique_ptr<Registry> registry_;
};

std::unique_ptr<RegistryBackend> MakeEtcd() { return std::make_unique<EtcdBackend>(); }

INSTANTIATE_TEST_SUITE_P(Etcd, RegistryContract, testing::Values(&MakeEtcd));

}  // namespace
}  // namespace kdn
