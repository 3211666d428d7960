// UsageSink: where an engine's reports go: to a node, to any one of several, or to a recorder in the same process.
// (To a cluster: kdn-client/cluster/cluster_usage.h.)
//
//   UsageReporter::Start({.space = space}, NodeUsageSink("127.0.0.1:7401"));
//
// Reports add up, so each is counted at most once: by one node, and never sent again where its answer was lost.
//
// Thread-safety: one thread at a time for each sink.
#ifndef KDN_KDN_CLIENT_USAGE_USAGE_SINK_H_
#define KDN_KDN_CLIENT_USAGE_USAGE_SINK_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "storage/analytics/use_report.h"

namespace kdn {

class AnalyticsRecorder;

// What became of a report.
enum class UsageOutcome : uint8_t {
  kCounted,
  kNotCounted,  // for certain: it may be sent again, with what has come since
  kUnknown,     // it was sent, and no answer came: it may have been counted
  kRefused,     // it will never be taken
};

class UsageSink {
 public:
  virtual ~UsageSink() = default;
  struct Sent {
    UsageOutcome outcome = UsageOutcome::kCounted;
    absl::Status why = {};  // where it was not counted, or may not have been
  };
  // Returns by `deadline`.
  virtual Sent Send(const UseReport& report, absl::Time deadline) = 0;
};

// To the node at `target`, over a connection of its own for each report. A target that ValidateTarget refuses
// refuses every report.
std::shared_ptr<UsageSink> NodeUsageSink(const std::string& target);

// To one of several nodes: the one that answered last, and another when it is away or no longer among them. `targets`
// is asked at every report, on the reporter's thread.
std::shared_ptr<UsageSink> AnyNodeUsageSink(std::function<std::vector<std::string>()> targets);

// For embedded stores, whose process has a recorder.
std::shared_ptr<UsageSink> RecorderUsageSink(std::shared_ptr<AnalyticsRecorder> recorder);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_USAGE_USAGE_SINK_H_
