#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "placement/registry/change_rules.h"
#include "placement/registry/etcd_calls.h"
#include "placement/registry/etcd_members.h"
#include "placement/registry/etcd_watch.h"
#include "placement/registry/interrupt.h"
#include "placement/registry/registry.h"
#include "storage/base/endpoint.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMaxPrefixBytes = 128;
constexpr size_t kMaxEndpoints = 16;

class EtcdRegistry final : public Registry {
 public:
  explicit EtcdRegistry(const EtcdOptions& options)
      : members_(options.endpoints), calls_(members_, options.prefix, options.call_timeout) {}

  absl::StatusOr<Snapshot> Read(std::string_view prefix, absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckPrefix(prefix));
    Interrupt never;
    return calls_.Read(prefix, deadline, never, nullptr);
  }

  absl::StatusOr<Revision> Commit(const Change& change, absl::Time deadline) override {
    KDN_RETURN_IF_ERROR(CheckChange(change));
    return calls_.Commit(change, deadline);
  }

  absl::StatusOr<LeaseId> Grant(absl::Duration ttl, absl::Time deadline) override {
    KDN_ASSIGN_OR_RETURN(const int64_t seconds, LeaseSeconds(ttl));
    return calls_.Grant(seconds, deadline);
  }

  absl::StatusOr<absl::Duration> KeepAlive(LeaseId lease, absl::Time deadline) override {
    return calls_.KeepAlive(lease, deadline);
  }

  absl::Status Revoke(LeaseId lease, absl::Time deadline) override { return calls_.Revoke(lease, deadline); }

  std::unique_ptr<RegistryWatch> Watch(std::string_view prefix, RegistryWatcher& watcher) override {
    return std::make_unique<EtcdWatch>(calls_, prefix, watcher);
  }

  std::string Describe() const override { return "etcd at " + members_.names(); }

 private:
  EtcdMembers members_;
  EtcdCalls calls_;
};

absl::Status CheckEndpoint(std::string_view endpoint) {
  if (endpoint.find("://") != std::string_view::npos) {
    return InvalidArgument("etcd endpoint '{}': leave the scheme away and give HOST:PORT; TLS is not supported yet",
                           endpoint);
  }
  const absl::StatusOr<Endpoint> parsed = ParseEndpoint(endpoint);
  if (!parsed.ok()) return Annotate(parsed.status(), "etcd endpoint");
  if (parsed->port == 0) return InvalidArgument("etcd endpoint '{}': name its port, mostly 2379", endpoint);
  return absl::OkStatus();
}

absl::Status CheckOptions(const EtcdOptions& options) {
  if (options.endpoints.empty()) {
    return InvalidArgument("etcd: no endpoint is given; name the members of the cluster, as 10.0.0.1:2379");
  }
  if (options.endpoints.size() > kMaxEndpoints) {
    return InvalidArgument("etcd: {} endpoints are given; at most {} are allowed", options.endpoints.size(),
                           kMaxEndpoints);
  }
  for (const std::string& endpoint : options.endpoints) KDN_RETURN_IF_ERROR(CheckEndpoint(endpoint));
  if (!options.prefix.starts_with('/') || !options.prefix.ends_with('/') || options.prefix.size() > kMaxPrefixBytes) {
    return InvalidArgument("etcd prefix '{}': begin and end it with '/', in at most {} bytes", options.prefix,
                           kMaxPrefixBytes);
  }
  if (options.call_timeout < absl::Milliseconds(100) || options.call_timeout > absl::Minutes(1)) {
    return InvalidArgument("etcd: a call timeout of {} ms; give 100 to 60000",
                           absl::ToInt64Milliseconds(options.call_timeout));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Registry>> ConnectEtcd(const EtcdOptions& options) {
  KDN_RETURN_IF_ERROR(CheckOptions(options));
  return std::make_unique<EtcdRegistry>(options);
}

}  // namespace kdn
