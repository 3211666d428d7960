// Flags of kdn-link, checked before anything starts.
//
//   LinkFlagsResult parsed = ParseLinkFlags(argc, argv);
//   if (!parsed.flags) { Print(parsed.text); return parsed.exit_code; }
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_LINK_FLAGS_H_
#define KDN_INTEGRATION_LINK_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "integration/link/link_options.h"
#include "storage/base/endpoint.h"

namespace kdn {

struct LinkFlags {
  Endpoint upstream;
  LinkOptions link;
  std::string port_file;
};

struct LinkFlagsResult {
  std::optional<LinkFlags> flags = {};  // absent: print `text` and exit with `exit_code`
  std::string text = {};                // help or version (exit code 0), or what is wrong, in one line (2)
  int exit_code = 0;
};

LinkFlagsResult ParseLinkFlags(int argc, const char* const* argv);

// "100Mbit", "2.5Gbit": bits a second, as a number and Kbit, Mbit or Gbit, powers of 1000; or "unlimited", which is 0.
absl::StatusOr<uint64_t> ParseBandwidth(std::string_view text);

// "0.1%": 0.001.
absl::StatusOr<double> ParsePercent(std::string_view text);

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_FLAGS_H_
