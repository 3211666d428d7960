// TraceContext: which request a call belongs to, as W3C Trace Context has it (https://www.w3.org/TR/trace-context/):
// the trace, whose id is the request id that users and logs see, and the span, one step of it. It travels from an
// engine through the client to every node that the request touches, as a `traceparent`.
//
// An engine that traces puts its own context around calls of KDN; no signature carries it:
//
//   const absl::StatusOr<TraceContext> trace = ParseTraceparent(http_request.header("traceparent"));
//   const ScopedTrace scope(trace.ok() ? *trace : NewTrace());
//   client.Fetch(…);                      // what nodes log of it has this trace's id
//
// Whoever hands work of a call to another thread hands the context on:
//
//   threads.Run([trace = CurrentTrace()] { const ScopedTrace scope(trace); … });
//
// Thread-safety: free functions may be called from any thread; a ScopedTrace is for the thread that made it, and scopes
// end in the reverse order of their begin.
#ifndef KDN_STORAGE_BASE_TRACE_CONTEXT_H_
#define KDN_STORAGE_BASE_TRACE_CONTEXT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kdn {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

// Name of the HTTP header and of gRPC's metadata entry.
inline constexpr char kTraceparentKey[] = "traceparent";

struct TraceContext {
  TraceId trace_id = {};
  SpanId span_id = {};
  bool sampled = false;  // whoever began the trace wants it recorded

  // Neither id is zero. One that is not valid stands for none.
  bool valid() const { return trace_id != TraceId{} && span_id != SpanId{}; }

  // Another span of the same trace, whose parent is this one. Not valid when this is not.
  TraceContext Child() const;

  // The trace id in 32 lower-case hexadecimal digits: the request id.
  std::string RequestId() const { return Hex(trace_id.data(), trace_id.size()); }
  std::string SpanHex() const { return Hex(span_id.data(), span_id.size()); }

  bool operator==(const TraceContext&) const = default;

 private:
  static std::string Hex(const uint8_t* bytes, size_t size);
};

// A new trace with its first span. Costs some nanoseconds; ids do not repeat over threads, processes or forks of them.
TraceContext NewTrace(bool sampled = false);

// "00-<trace id>-<span id>-<flags>", 55 characters, of a valid context; empty otherwise.
std::string FormatTraceparent(const TraceContext& trace);

// INVALID_ARGUMENT naming what is wrong: another length, upper case, an id of zeros, version ff. Of later versions it
// takes what is known of them, as the standard demands; flags other than `sampled` are dropped.
absl::StatusOr<TraceContext> ParseTraceparent(std::string_view text);

// That of the innermost ScopedTrace of this thread; not valid when there is none.
const TraceContext& CurrentTrace();

// The current trace, or a new one: what a call is sent under.
TraceContext CurrentOrNewTrace();

// A new span of the current trace, or a new trace: what a call of an engine is, that may send several.
TraceContext ChildOfCurrentOrNewTrace();

// Makes `trace` this thread's current one for as long as it lives.
class ScopedTrace {
 public:
  explicit ScopedTrace(const TraceContext& trace);
  ~ScopedTrace();
  ScopedTrace(const ScopedTrace&) = delete;
  ScopedTrace& operator=(const ScopedTrace&) = delete;

 private:
  const TraceContext before_;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_TRACE_CONTEXT_H_
