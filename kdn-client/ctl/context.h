// Context: what every command is given: the flags that all commands have, the terminal, and the daemons.
//
//   KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
//   KDN_RETURN_IF_ERROR(context.Confirm("erase 12 chunks"));
//   context.Print(report);
//
// Thread-safety: one thread at a time, but for Deadline.
#ifndef KDN_KDN_CLIENT_CTL_CONTEXT_H_
#define KDN_KDN_CLIENT_CTL_CONTEXT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/ctl/fleet.h"
#include "kdn-client/ctl/report.h"
#include "kdn-client/ctl/terminal.h"

namespace kdn::ctl {

struct GlobalFlags {
  std::string node;                    // HOST:PORT, or the id of one of the cluster's nodes
  std::vector<std::string> placement;  // HOST:PORT
  std::string output = "table";
  std::string deadline = "10s";
  bool yes = false;
  std::string trace_parent;  // of the request that the command is; empty: a new one
};

inline constexpr const char* kDefaultNode = "127.0.0.1:7401";

class Context {
 public:
  // Both outlive this. INVALID_ARGUMENT: a flag's value.
  static absl::StatusOr<std::unique_ptr<Context>> Make(const GlobalFlags& flags, Terminal& terminal);

  const GlobalFlags& flags() const { return flags_; }
  Terminal& terminal() { return terminal_; }
  Format format() const { return format_; }

  // By when one call that begins now is to be answered.
  absl::Time Deadline() const;
  absl::Duration patience() const { return deadline_; }

  // The daemons that the flags name. Errors as Fleet::Open.
  absl::StatusOr<Fleet*> OpenFleet();
  // The same, of a cluster. INVALID_ARGUMENT without --placement.
  absl::StatusOr<Fleet*> OpenCluster();

  // Asks on a terminal whether to `what` ("erase 12 chunks"). ABORTED: the answer was not yes, or there is nobody to
  // ask and --yes was not given.
  absl::Status Confirm(const std::string& what);

  void Print(const Report& report) { report.Print(format_, terminal_.out); }
  // A line for people, on standard error.
  void Say(const std::string& line);

 private:
  Context(const GlobalFlags& flags, Terminal& terminal) : flags_(flags), terminal_(terminal) {}

  const GlobalFlags& flags_;
  Terminal& terminal_;
  Format format_ = Format::kTable;
  absl::Duration deadline_;
  std::unique_ptr<Fleet> fleet_;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_CONTEXT_H_
