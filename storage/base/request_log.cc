#include "storage/base/request_log.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<RequestFilter> RequestFilterFlag(std::string_view name, std::span<const std::string> words,
                                                absl::Duration slow) {
  RequestFilter filter;
  for (const std::string& word : words) {
    if (word == "off" || word == "all") {
      if (words.size() > 1) return InvalidArgument("{}: '{}' stands alone; give it, or some of the others", name, word);
      filter.all = word == "all";
    } else if (word == "failed") {
      filter.failed = true;
    } else if (word == "slow") {
      filter.slow = slow;
    } else if (word == "sampled") {
      filter.sampled = true;
    } else {
      return InvalidArgument("{}: '{}' is not one of off, failed, slow, sampled, all", name, word);
    }
  }
  return filter;
}

std::string LoggedCallName(std::string_view method) {
  std::string name;
  for (const char c : method) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper && !name.empty()) name += '_';
    name += upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return name;
}

RequestSpan SpanOf(std::string_view traceparent) {
  if (traceparent.empty()) return {.trace = NewTrace()};
  const absl::StatusOr<TraceContext> caller = ParseTraceparent(traceparent);
  if (!caller.ok()) return {.trace = NewTrace()};
  return {.trace = caller->Child(), .parent = caller->span_id};
}

RequestLog::RequestLog(const RequestFilter& filter, LogFormat format, std::string daemon,
                       std::shared_ptr<spdlog::logger> lines)
    : filter_(filter), format_(format), daemon_(std::move(daemon)), lines_(std::move(lines)) {}

void RequestLog::Write(const LoggedRequest& request, absl::FunctionRef<void(LogFields&)> details) const {
  const TraceContext& trace = request.span.trace;
  if (!filter_.Wants(request.failed, trace.sampled, request.took)) return;
  LogFields fields(format_);
  fields.Add("call", request.call)
      .Add("status", absl::StatusCodeToString(request.status.code()))
      .Add("node", daemon_)
      .Add("request_id", trace.RequestId())
      .Add("span_id", trace.SpanHex());
  if (request.span.parent != SpanId{})
    fields.Add("parent_span_id", TraceContext{.span_id = request.span.parent}.SpanHex());
  fields.Add("sampled", uint64_t{trace.sampled});
  fields.Add("peer", request.peer).Add("protocol", request.protocol);
  details(fields);
  fields.Add("total_us", static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(request.took))));
  if (!request.error.empty()) fields.Add("error", request.error);
  lines_->log(request.failed ? spdlog::level::warn : spdlog::level::info,
              spdlog::string_view_t(fields.text().data(), fields.text().size()));
}

}  // namespace kdn
