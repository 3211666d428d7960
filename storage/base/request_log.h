// RequestLog: one line for each call that a daemon has answered, with the id of the request that it was part of, so
// that what engine, client, placement and nodes know of one request can be put together.
//
//   RequestLog log(filter, LogFormat::kJson, "n1", logging.fields());
//   const RequestSpan span = SpanOf(traceparent);           // when the call comes
//   …
//   log.Write({.call = "fetch", .span = span, …}, [&](LogFields& fields) { fields.Add("bytes", bytes); });
//
// A line has: call, status (canonical name), node, request_id, span_id, parent_span_id where the caller has named a
// span, sampled, peer, protocol; then what the call adds; total_us, and error where there is one. Calls
// that failed are warnings.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_BASE_REQUEST_LOG_H_
#define KDN_STORAGE_BASE_REQUEST_LOG_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/base/log_format.h"
#include "storage/base/trace_context.h"

namespace spdlog {
class logger;
}

namespace kdn {

// Which calls are logged: those to which any of these applies.
struct RequestFilter {
  bool all = false;
  bool failed = false;
  bool sampled = false;                            // whoever began the trace asked for it
  absl::Duration slow = absl::InfiniteDuration();  // took at least so long

  bool off() const { return !all && !failed && !sampled && slow == absl::InfiniteDuration(); }
  bool Wants(bool has_failed, bool is_sampled, absl::Duration took) const {
    return all || (failed && has_failed) || (sampled && is_sampled) || took >= slow;
  }
};

// `words`: off or all alone, or any of failed, slow, sampled. INVALID_ARGUMENT naming the flag `name`.
absl::StatusOr<RequestFilter> RequestFilterFlag(std::string_view name, std::span<const std::string> words,
                                                absl::Duration slow);

// A call as a span of its caller's trace.
struct RequestSpan {
  TraceContext trace;
  SpanId parent = {};  // zero: none
};

// Of a call that came with this `traceparent`. Without one that is valid it begins a trace.
RequestSpan SpanOf(std::string_view traceparent);

// As the log has a method's name: "ListChunks" is "list_chunks".
std::string LoggedCallName(std::string_view method);

struct LoggedRequest {
  std::string_view call;  // a word, as in "fetch"
  RequestSpan span = {};
  std::string_view peer = {};
  std::string_view protocol = {};
  absl::Status status = {};
  std::string error = {};  // what went wrong, also where the status is OK
  bool failed = false;     // for the filter and the line's level, also where the status is OK
  absl::Duration took = {};
};

class RequestLog {
 public:
  // `daemon`: this daemon's id. Lines go to `lines`, a logger named kFieldsLogger whose sinks format by
  // MakeLogFormatter(format).
  RequestLog(const RequestFilter& filter, LogFormat format, std::string daemon, std::shared_ptr<spdlog::logger> lines);

  // Writes a line if the filter wants one; `details` adds to it.
  void Write(const LoggedRequest& request, absl::FunctionRef<void(LogFields&)> details) const;

 private:
  const RequestFilter filter_;
  const LogFormat format_;
  const std::string daemon_;
  const std::shared_ptr<spdlog::logger> lines_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_REQUEST_LOG_H_
