// Flags of kdn-node: from the command line and from a file with the same names, checked before anything starts.
//
//   FlagsResult parsed = ParseFlags(argc, argv);
//   if (!parsed.flags) { Print(parsed.text); return parsed.exit_code; }
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_NODE_FLAGS_H_
#define KDN_KDN_NODE_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-node/cluster/member_options.h"
#include "kdn-node/server.h"
#include "storage/tiered_store.h"

namespace kdn {

struct NodeFlags {
  ServerOptions server;
  TieredStoreOptions store;
  bool shared_memory = true;            // make an arena for the store
  std::optional<MemberOptions> member;  // absent: a node alone
  absl::Duration stop_grace = absl::Seconds(10);
  std::string port_file;
  std::string log_level = "info";
};

struct FlagsResult {
  std::optional<NodeFlags> flags = {};  // absent: print `text` and exit with `exit_code`
  std::string text = {};                // help or version (exit code 0), or what is wrong, in one line (2)
  int exit_code = 0;
};

FlagsResult ParseFlags(int argc, const char* const* argv);

// "4096", "512MiB", "4GiB", "1TB": a whole number and a unit (KiB to TiB are powers of 1024, KB to TB of 1000).
// INVALID_ARGUMENT otherwise, and where the size is over 2^63.
absl::StatusOr<uint64_t> ParseByteSize(std::string_view text);

}  // namespace kdn

#endif  // KDN_KDN_NODE_FLAGS_H_
