// Errors, made in one line: absl::Status with a formatted message, and the two macros that pass them on.
//
//   if (heads == 0) return InvalidArgument("layer run {}: kv_heads is 0; give the heads of this rank", run);
//   KDN_ASSIGN_OR_RETURN(const Manifest manifest, DecodeManifest(bytes));
//   KDN_RETURN_IF_ERROR(tier->Put(chunk, ack));
//
// Messages name the thing and the mend. (Debian's Abseil has a string_view of its own, which absl::StrFormat wants; fmt
// takes std::string_view.)
#ifndef KDN_STORAGE_BASE_STATUS_H_
#define KDN_STORAGE_BASE_STATUS_H_

#include <fmt/core.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn {

#define KDN_DEFINE_ERROR(name, code)                                                               \
  template <typename... Args>                                                                      \
  [[nodiscard]] absl::Status name(fmt::format_string<Args...> format, Args&&... args) {            \
    return absl::Status(absl::StatusCode::code, fmt::format(format, std::forward<Args>(args)...)); \
  }
KDN_DEFINE_ERROR(Cancelled, kCancelled)
KDN_DEFINE_ERROR(DataLoss, kDataLoss)
KDN_DEFINE_ERROR(DeadlineExceeded, kDeadlineExceeded)
KDN_DEFINE_ERROR(FailedPrecondition, kFailedPrecondition)
KDN_DEFINE_ERROR(Internal, kInternal)
KDN_DEFINE_ERROR(InvalidArgument, kInvalidArgument)
KDN_DEFINE_ERROR(NotFound, kNotFound)
KDN_DEFINE_ERROR(ResourceExhausted, kResourceExhausted)
KDN_DEFINE_ERROR(Unavailable, kUnavailable)
KDN_DEFINE_ERROR(Unimplemented, kUnimplemented)
#undef KDN_DEFINE_ERROR

inline std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// The same code, with `context` in front of the message.
inline absl::Status Annotate(const absl::Status& status, const std::string& context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", context, MessageOf(status)));
}

}  // namespace kdn

#define KDN_RETURN_IF_ERROR(expr)                                              \
  do {                                                                         \
    if (absl::Status kdn_status = (expr); !kdn_status.ok()) return kdn_status; \
  } while (false)

#define KDN_ASSIGN_OR_RETURN(lhs, expr) KDN_ASSIGN_OR_RETURN_IMPL_(KDN_CONCAT_(kdn_statusor_, __LINE__), lhs, expr)
#define KDN_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr)    \
  auto statusor = (expr);                                  \
  if (!statusor.ok()) return std::move(statusor).status(); \
  lhs = std::move(statusor).value()
#define KDN_CONCAT_(a, b) KDN_CONCAT_INNER_(a, b)
#define KDN_CONCAT_INNER_(a, b) a##b

#endif  // KDN_STORAGE_BASE_STATUS_H_
