#include "storage/base/log_flags.h"

#include <CLI/CLI.hpp>

#include "storage/base/flag_values.h"
#include "storage/base/status.h"

namespace kdn {

void DeclareLogFlags(CLI::App& app, LogFlags& flags) {
  const auto add = [&app](const char* name, auto& value, const char* type, const char* help) {
    return app.add_option(name, value, help)->capture_default_str()->type_name(type)->group("Process");
  };
  add("--log-level", flags.level, "LEVEL", "trace, debug, info, warn, error or off");
  add("--log-format", flags.format, "text|json", "Lines of text, or one JSON object a line");
  add("--log-requests", flags.requests, "WHICH,...",
      "Calls that get a line in the log, with the request's id: off, all, or any of failed, slow, sampled (as their "
      "traceparent says)")
      ->delimiter(',');
  add("--slow-request", flags.slow_request, "DURATION", "How long a call takes that --log-requests slow logs");
}

absl::StatusOr<LogSettings> CheckLogFlags(const LogFlags& flags) {
  LogSettings settings;
  KDN_RETURN_IF_ERROR(CheckLogLevel("--log-level", flags.level));
  settings.log.level = flags.level;
  KDN_ASSIGN_OR_RETURN(settings.log.format, LogFormatFlag("--log-format", flags.format));
  KDN_ASSIGN_OR_RETURN(const absl::Duration slow,
                       DurationFlag("--slow-request", flags.slow_request, /*zero_is_fine=*/true));
  KDN_ASSIGN_OR_RETURN(settings.requests, RequestFilterFlag("--log-requests", flags.requests, slow));
  return settings;
}

}  // namespace kdn
