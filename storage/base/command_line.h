// CommandLine: the part of reading a command line that is the same for all of KDN's programs. CLI11 reports by
// exceptions; here they end.
//
//   CLI::App app("kdn-placement: …", "kdn-placement");
//   Declare(app, raw);
//   if (std::optional<ProgramExit> exit = ReadCommandLine(app, argc, argv)) return {.exit = *exit};
//   absl::StatusOr<Flags> flags = Check(raw);
//   if (!flags.ok()) return {.exit = BadFlags(app, flags.status())};
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_BASE_COMMAND_LINE_H_
#define KDN_STORAGE_BASE_COMMAND_LINE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace kdn {

// What a program that does not go on prints, and the code that it exits with.
struct ProgramExit {
  std::string text;
  int exit_code = 0;  // 0: help or version, for standard output; otherwise one line for standard error
};

inline constexpr int kBadFlagsExit = 2;

// Nothing when the flags were read.
std::optional<ProgramExit> ReadCommandLine(CLI::App& app, int argc, const char* const* argv);

// One line that says what is wrong and where to look.
ProgramExit BadFlags(const CLI::App& app, const absl::Status& why);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_COMMAND_LINE_H_
