// NodeAnalyticsSource: asks nodes what they have counted.
//
//   GrpcNodeAnalytics source;
//   source.Ask("10.0.0.7:7401", {}, absl::Seconds(2), [](absl::StatusOr<v1::AnalyticsSnapshot> snapshot) { … });
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_ANALYTICS_NODE_ANALYTICS_H_
#define KDN_PLACEMENT_ANALYTICS_NODE_ANALYTICS_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn/v1/analytics.grpc.pb.h"
#include "storage/base/mutex.h"

namespace kdn {

class NodeAnalyticsSource {
 public:
  using Done = std::function<void(absl::StatusOr<v1::AnalyticsSnapshot>)>;

  virtual ~NodeAnalyticsSource() = default;
  // `done` comes once, after no more than about `timeout`, on any thread, this one included.
  virtual void Ask(const std::string& address, const v1::GetAnalyticsRequest& request, absl::Duration timeout,
                   Done done) = 0;
  // Closes connections to all others.
  virtual void Keep(const std::set<std::string>& addresses) = 0;
  // Calls that run end soon; those that come from now on fail at once.
  virtual void Cancel() = 0;
};

// Over gRPC. Destroy it when no call runs.
class GrpcNodeAnalytics final : public NodeAnalyticsSource {
 public:
  void Ask(const std::string& address, const v1::GetAnalyticsRequest& request, absl::Duration timeout,
           Done done) override;
  void Keep(const std::set<std::string>& addresses) override;
  void Cancel() override;

 private:
  struct Call;
  using Stub = std::shared_ptr<v1::AnalyticsService::Stub>;

  Mutex mu_;
  std::map<std::string, Stub> stubs_ ABSL_GUARDED_BY(mu_);  // by address
  std::set<std::shared_ptr<Call>> running_ ABSL_GUARDED_BY(mu_);
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_NODE_ANALYTICS_H_
