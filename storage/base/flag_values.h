// Values of command-line flags, as all of KDN's programs write them.
//
//   KDN_ASSIGN_OR_RETURN(options.ttl, DurationFlag("--node-ttl", raw.ttl, /*zero_is_fine=*/false));
//
// Errors are INVALID_ARGUMENT and name the flag, its value and the mend.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_BASE_FLAG_VALUES_H_
#define KDN_STORAGE_BASE_FLAG_VALUES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/endpoint.h"

namespace kdn {

// "4096", "512MiB", "4GiB", "1TB": a whole number and a unit (KiB to TiB are powers of 1024, KB to TB of 1000).
// INVALID_ARGUMENT otherwise, and where the size is over 2^63.
absl::StatusOr<uint64_t> ParseByteSize(std::string_view text);

// A size of at least `least` bytes.
absl::StatusOr<uint64_t> SizeFlag(std::string_view name, const std::string& text, uint64_t least);

// "90s", "1h", "1.5s"; finite and not negative.
absl::StatusOr<absl::Duration> DurationFlag(std::string_view name, const std::string& text, bool zero_is_fine);

// HOST:PORT to listen on; one that other machines reach only with `insecure_remote`.
absl::StatusOr<Endpoint> ListenFlag(std::string_view name, const std::string& text, bool insecure_remote);

// "trace", "debug", "info", "warn", "error" or "off".
absl::Status CheckLogLevel(std::string_view name, const std::string& text);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_FLAG_VALUES_H_
