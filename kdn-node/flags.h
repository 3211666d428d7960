// Flags of kdn-node: from the command line and from a file with the same names, checked before anything starts.
//
//   FlagsResult parsed = ParseFlags(argc, argv);
//   if (!parsed.flags) { Print(parsed.exit.text); return parsed.exit.exit_code; }
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_NODE_FLAGS_H_
#define KDN_KDN_NODE_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "kdn-node/cluster/member_options.h"
#include "kdn-node/server.h"
#include "storage/base/command_line.h"
#include "storage/base/daemon_process.h"
#include "storage/base/request_log.h"
#include "storage/tiered_store.h"

namespace kdn {

struct NodeFlags {
  ServerOptions server;
  TieredStoreOptions store;
  AnalyticsOptions analytics;
  bool shared_memory = true;            // make an arena for the store
  std::optional<MemberOptions> member;  // absent: a node alone
  absl::Duration stop_grace = absl::Seconds(10);
  std::string port_file;
  LogOptions log;
  RequestFilter log_requests;
};

struct FlagsResult {
  std::optional<NodeFlags> flags = {};  // absent: print and exit
  ProgramExit exit = {};
};

FlagsResult ParseFlags(int argc, const char* const* argv);

}  // namespace kdn

#endif  // KDN_KDN_NODE_FLAGS_H_
