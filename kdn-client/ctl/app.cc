#include "kdn-client/ctl/app.h"

#include <CLI/CLI.hpp>
#include <optional>

#include "storage/base/command_line.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn::ctl {
namespace {

void DeclareGlobal(CLI::App& app, GlobalFlags& flags) {
  const auto add = [&](const char* names, auto& value, const char* type, const char* env, const char* help) {
    return app.add_option(names, value, help)->type_name(type)->envname(env)->group("Global");
  };
  // Of the others the last one counts, so that a script's wrapper can be overruled.
  add("--node", flags.node, "HOST:PORT", "KDN_NODE",
      "The node; with --placement one of the cluster's, by id or address. 127.0.0.1:7401 if neither is given")
      ->take_last();
  add("--placement", flags.placement, "HOST:PORT,...", "KDN_PLACEMENT", "The cluster's placement daemons, one or more")
      ->delimiter(',');
  add("-o,--output", flags.output, "FORMAT", "KDN_OUTPUT", "table, or json for scripts")
      ->capture_default_str()
      ->take_last();
  add("--deadline", flags.deadline, "DURATION", "KDN_DEADLINE",
      "Longest wait for one answer; what reads or moves much takes as long as it takes")
      ->capture_default_str()
      ->take_last();
  add("--trace-parent", flags.trace_parent, "TRACEPARENT", "KDN_TRACE_PARENT",
      "The request that the command is part of, as W3C Trace Context writes it; a new one unless given. Daemons that "
      "log requests have its id")
      ->take_last();
  app.add_flag("-y,--yes", flags.yes, "Do not ask before something is erased or moved")->group("Global");
}

// The span that is this command.
absl::StatusOr<TraceContext> TraceOf(const GlobalFlags& flags) {
  if (flags.trace_parent.empty()) return NewTrace(/*sampled=*/true);
  const absl::StatusOr<TraceContext> caller = ParseTraceparent(flags.trace_parent);
  if (!caller.ok()) return Annotate(caller.status(), "--trace-parent");
  return caller->Child();
}

// Whether daemons may have been asked before it failed so, and what they logged is of use.
bool MayBeLogged(const absl::Status& status) {
  return !absl::IsInvalidArgument(status) && !absl::IsAborted(status) && !absl::IsNotFound(status);
}

// What a failure says, with the mend where the message does not have it.
std::string MessageFor(const absl::Status& status, const TraceContext& trace) {
  std::string message = Printable(MessageOf(status));
  if (absl::IsUnavailable(status)) message += "; is the daemon running, and do --node and --placement name it?";
  if (absl::IsDeadlineExceeded(status)) message += "; --deadline gives it more time";
  if (trace.valid() && MayBeLogged(status)) message += " (request " + trace.RequestId() + ")";
  return message;
}

}  // namespace

CtlApp::~CtlApp() = default;

CtlApp::CtlApp() : app(std::make_unique<CLI::App>("kdnctl: looks after KDN nodes and clusters.", "kdnctl")) {
  app->set_version_flag("--version", "kdnctl " KDN_VERSION);
  app->set_help_flag("-h,--help", "Print this and exit");
  app->get_formatter()->column_width(34);
  app->fallthrough();             // global flags may stand behind the command
  app->require_subcommand(0, 1);  // none is told by RunCtl, as CLI11 would not name a word that is no command
  DeclareGlobal(*app, flags);
  for (const Command& command : Commands()) {
    CLI::App* const sub = app->add_subcommand(command.name, command.summary)->group(command.group);
    sub->set_help_flag("-h,--help", "Print this and exit");
    sub->footer("And --node, --placement, --output, --deadline, --trace-parent and --yes, as `kdnctl --help` says.");
    runners[sub] = command.declare(*sub);
  }
  app->footer("`kdnctl COMMAND --help` tells of a command; kdnctl(1) of all, and of the exit codes.");
}

int RunCtl(int argc, const char* const* argv, Terminal& terminal) {
  CtlApp ctl;
  if (const std::optional<ProgramExit> exit = ReadCommandLine(*ctl.app, argc, argv)) {
    (exit->exit_code == 0 ? terminal.out : terminal.err) << exit->text;
    return exit->exit_code;
  }
  TraceContext trace;
  const auto run = [&]() -> absl::StatusOr<ExitCode> {
    if (ctl.app->get_subcommands().empty()) return InvalidArgument("no command; `kdnctl --help` lists them");
    KDN_ASSIGN_OR_RETURN(trace, TraceOf(ctl.flags));
    const ScopedTrace scope(trace);
    KDN_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Make(ctl.flags, terminal));
    return ctl.runners.at(ctl.app->get_subcommands().front())(*context);
  };
  const absl::StatusOr<ExitCode> code = run();
  terminal.out.flush();
  if (code.ok()) return static_cast<int>(*code);
  terminal.err << "kdnctl: " << MessageFor(code.status(), trace) << '\n';
  return static_cast<int>(ExitCodeOf(code.status()));
}

}  // namespace kdn::ctl
