// Checks: what kdnctl doctor finds in what daemons say of themselves; apart from how it is asked, so that it can be
// tested without daemons.
//
//   std::vector<Finding> findings = Examine(examined);
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_CTL_CHECKS_H_
#define KDN_KDN_CLIENT_CTL_CHECKS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn/v1/admin.pb.h"
#include "kdn/v1/node.pb.h"
#include "placement/topology/topology.h"

namespace kdn::ctl {

enum class Severity : uint8_t { kFine, kWarning, kProblem };
std::string_view SeverityName(Severity severity);  // "ok", "warning", "problem"

struct Finding {
  Severity severity = Severity::kFine;
  std::string check;    // a word for scripts: "reachable", "version", "clock", …
  std::string subject;  // which daemon
  std::string what;
  std::string mend = {};  // empty when fine
};

struct ExaminedNode {
  std::string name;
  bool up = true;       // as placement says
  absl::Status status;  // of asking it
  v1::InspectResponse said = {};
  v1::StatsResponse stats = {};
  absl::Time asked = {};  // by this machine's clock
  absl::Time answered = {};
};

struct ExaminedPlacement {
  std::string address;
  absl::Status status;
  TopologyPtr topology = nullptr;
};

struct Examined {
  std::string version = {};                        // of this kdnctl
  std::vector<ExaminedPlacement> placements = {};  // none: the node is alone
  std::vector<ExaminedNode> nodes = {};
  // The newest epoch that placement had before the nodes were asked; a node may be behind it for a moment only.
  Epoch epoch = 0;
};

// All findings, those that are fine too, in the order of what they are about.
std::vector<Finding> FindingsOf(const Examined& examined);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_CHECKS_H_
