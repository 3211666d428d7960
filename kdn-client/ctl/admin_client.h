// AdminClient: AdminService of one node (proto/kdn/v1/admin.proto), and what else operators ask of it.
//
//   AdminClient admin("127.0.0.1:7401");
//   v1::InspectResponse who;
//   KDN_RETURN_IF_ERROR(admin.Inspect(deadline, who));
//
// Errors name the node. UNIMPLEMENTED: the node is older than AdminService. Streams take as long as they take; a node
// that is gone or dead ends them with UNAVAILABLE.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_CTL_ADMIN_CLIENT_H_
#define KDN_KDN_CLIENT_CTL_ADMIN_CLIENT_H_

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/node_channel.h"
#include "kdn/v1/admin.grpc.pb.h"
#include "kdn/v1/analytics.grpc.pb.h"
#include "kdn/v1/node.grpc.pb.h"
#include "storage/format/digest.h"

namespace kdn::ctl {

class AdminClient {
 public:
  // `target` is one that ValidateTarget accepts.
  explicit AdminClient(const std::string& target);

  absl::Status Inspect(absl::Time deadline, v1::InspectResponse& response);
  // Of NodeService.
  absl::Status Stats(absl::Time deadline, v1::StatsResponse& response);
  // Of AnalyticsService.
  absl::Status GetAnalytics(const v1::GetAnalyticsRequest& request, absl::Time deadline,
                            v1::AnalyticsSnapshot& response);
  absl::Status ListSpaces(absl::Time deadline, v1::ListSpacesResponse& response);
  absl::Status SetQuota(const v1::SetQuotaRequest& request, absl::Time deadline, v1::SetQuotaResponse& response);
  // One answer for each key, in order; any number of them.
  absl::StatusOr<std::vector<v1::Explained>> Explain(std::span<const ChunkKey> keys, absl::Time deadline);

  // Each hands every message to its function, until that returns false.
  absl::Status ListHeldChunks(const v1::ListHeldChunksRequest& request,
                              const std::function<bool(const v1::HeldChunksPage&)>& on_page);
  absl::Status Clear(const v1::ClearRequest& request, const std::function<bool(const v1::ClearProgress&)>& on_progress);
  absl::Status Verify(const v1::VerifyRequest& request,
                      const std::function<bool(const v1::VerifyProgress&)>& on_progress);

  // Of AnalyticsService. Goes on until another thread cancels `context`: CANCELLED then.
  absl::Status RecordRequests(const v1::RecordRequestsRequest& request, grpc::ClientContext& context,
                              const std::function<void(const v1::RecordedRequests&)>& on_requests);

 private:
  template <typename Call>
  absl::Status Unary(absl::Time deadline, Call call);
  template <typename Message, typename Open>
  absl::Status Stream(Open open, const std::function<bool(const Message&)>& on_message);
  absl::Status Named(const grpc::Status& status) const;

  const std::string target_;
  NodeChannel channel_;
  v1::AdminService::Stub stub_;
  v1::NodeService::Stub node_stub_;
  v1::AnalyticsService::Stub analytics_stub_;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_ADMIN_CLIENT_H_
