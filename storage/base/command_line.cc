#include "storage/base/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>
#include <utility>

#include "storage/base/status.h"

namespace kdn {
namespace {

ProgramExit Bad(const std::string& program, std::string message) {
  std::ranges::replace(message, '\n', ' ');
  return {.text = fmt::format("{}: {}; see {} --help\n", program, message, program), .exit_code = kBadFlagsExit};
}

}  // namespace

std::optional<ProgramExit> ReadCommandLine(CLI::App& app, int argc, const char* const* argv) {
  try {  // --help and --version come as exceptions too
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, err;
    if (app.exit(e, out, err) == 0) return ProgramExit{.text = out.str(), .exit_code = 0};
    return Bad(app.get_name(), e.what());
  }
}

ProgramExit BadFlags(const CLI::App& app, const absl::Status& why) { return Bad(app.get_name(), MessageOf(why)); }

}  // namespace kdn
