// Command: one of kdnctl's commands. A new one is a row in commands.cc and a file in commands/.
//
//   Runner DeclareWeight(CLI::App& app) {
//     auto node = std::make_shared<std::string>();
//     app.add_option("NODE", *node, "Its id")->required();
//     return [node](Context& context) -> absl::StatusOr<ExitCode> { … };
//   }
//
// Thread-safety: the table is constant.
#ifndef KDN_KDN_CLIENT_CTL_COMMAND_H_
#define KDN_KDN_CLIENT_CTL_COMMAND_H_

#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "kdn-client/ctl/context.h"
#include "kdn-client/ctl/exit_code.h"

namespace CLI {
class App;
}

namespace kdn::ctl {

// Does the command's work, once the flags that Declare gave to the app were read.
using Runner = std::function<absl::StatusOr<ExitCode>(Context&)>;

struct Command {
  const char* name;
  const char* group;    // heading in the help
  const char* summary;  // one line
  Runner (*declare)(CLI::App& app);
};

// All of them, in the order of the help.
std::span<const Command> Commands();

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_COMMAND_H_
