// kdnctl completion: what a shell needs to complete commands and flags, and the manual page.
#include "kdn-client/ctl/completion.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/man_page.h"
#include "storage/base/status.h"

namespace kdn::ctl {

Runner DeclareCompletion(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("SHELL", *shell, "bash or zsh; man: the manual page, for man(1)")->required()->type_name("");
  const CLI::App* const all = app.get_parent();
  return [shell, all](Context& context) -> absl::StatusOr<ExitCode> {
    std::ostream& out = context.terminal().out;
    if (*shell == "bash") {
      out << BashCompletion(*all);
    } else if (*shell == "zsh") {
      out << ZshCompletion(*all);
    } else if (*shell == "man") {
      out << ManPage(*all);
    } else {
      return InvalidArgument("there is no completion for '{}'; name bash, zsh or man", *shell);
    }
    return ExitCode::kDone;
  };
}

}  // namespace kdn::ctl
