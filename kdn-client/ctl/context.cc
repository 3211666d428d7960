#include "kdn-client/ctl/context.h"

#include "absl/time/clock.h"
#include "storage/base/clock.h"
#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn::ctl {

absl::StatusOr<std::unique_ptr<Context>> Context::Make(const GlobalFlags& flags, Terminal& terminal) {
  auto context = std::unique_ptr<Context>(new Context(flags, terminal));
  KDN_ASSIGN_OR_RETURN(context->format_, FormatFromName(flags.output));
  KDN_ASSIGN_OR_RETURN(context->deadline_, DurationFlag("--deadline", flags.deadline, /*zero_is_fine=*/false));
  return context;
}

absl::Time Context::Deadline() const { return RealNow() + deadline_; }

absl::StatusOr<Fleet*> Context::OpenFleet() {
  if (fleet_ == nullptr) {
    FleetOptions options = {.node = flags_.node, .placement = flags_.placement, .patience = deadline_};
    if (options.node.empty() && options.placement.empty()) options.node = kDefaultNode;
    KDN_ASSIGN_OR_RETURN(fleet_, Fleet::Open(options));
  }
  return fleet_.get();
}

absl::StatusOr<Fleet*> Context::OpenCluster() {
  if (flags_.placement.empty()) {
    return InvalidArgument("this is about a cluster; name its placement daemons by --placement or KDN_PLACEMENT");
  }
  return OpenFleet();
}

absl::Status Context::Confirm(const std::string& what) {
  if (flags_.yes) return absl::OkStatus();
  if (!terminal_.in_is_terminal || !terminal_.err_is_terminal) {
    return absl::AbortedError(fmt::format("this would {}, and there is no terminal to ask on; say --yes", what));
  }
  terminal_.err << "This will " << Printable(what) << ". Go on? [y/N] " << std::flush;
  std::string answer;
  std::getline(terminal_.in, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return absl::OkStatus();
  return absl::AbortedError("nothing was done; answer y, or say --yes");
}

void Context::Say(const std::string& line) { terminal_.err << Printable(line) << '\n'; }

}  // namespace kdn::ctl
