// Flags of kdn-placement: from the command line and from a file with the same names, checked before anything starts.
//
//   PlacementFlagsResult parsed = ParsePlacementFlags(argc, argv);
//   if (!parsed.flags) { Print(parsed.exit.text); return parsed.exit.exit_code; }
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_DAEMON_FLAGS_H_
#define KDN_PLACEMENT_DAEMON_FLAGS_H_

#include <optional>
#include <string>
#include <variant>

#include "absl/time/time.h"
#include "placement/daemon/placement_server.h"
#include "placement/registry/registry.h"
#include "storage/base/command_line.h"
#include "storage/base/daemon_process.h"
#include "storage/base/request_log.h"

namespace kdn {

struct PlacementFlags {
  PlacementServerOptions server;
  std::variant<EmbeddedRegistryOptions, EtcdOptions> registry;
  absl::Duration stop_grace = absl::Seconds(10);
  std::string port_file;
  LogOptions log;
  RequestFilter log_requests;
};

struct PlacementFlagsResult {
  std::optional<PlacementFlags> flags = {};  // absent: print and exit
  ProgramExit exit = {};
};

PlacementFlagsResult ParsePlacementFlags(int argc, const char* const* argv);

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_FLAGS_H_
