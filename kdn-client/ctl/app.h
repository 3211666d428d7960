// The command line of kdnctl as a whole: global flags, all commands, and how one is run.
//
//   Terminal terminal;
//   return RunCtl(argc, argv, terminal);
//
// Thread-safety: one thread.
#ifndef KDN_KDN_CLIENT_CTL_APP_H_
#define KDN_KDN_CLIENT_CTL_APP_H_

#include <map>
#include <memory>

#include "kdn-client/ctl/command.h"
#include "kdn-client/ctl/context.h"
#include "kdn-client/ctl/terminal.h"

namespace CLI {
class App;
}

namespace kdn::ctl {

struct CtlApp {
  CtlApp();
  ~CtlApp();

  GlobalFlags flags;
  std::unique_ptr<CLI::App> app;  // writes into `flags` when it parses
  std::map<const CLI::App*, Runner> runners;
};

// The exit code.
int RunCtl(int argc, const char* const* argv, Terminal& terminal);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_APP_H_
