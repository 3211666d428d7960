// Completion scripts, made of the command line itself.
//
//   std::cout << BashCompletion(app);   // as deploy/completion/kdnctl.bash has it; a test compares the two
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_CTL_COMPLETION_H_
#define KDN_KDN_CLIENT_CTL_COMPLETION_H_

#include <string>

namespace CLI {
class App;
}

namespace kdn::ctl {

std::string BashCompletion(const CLI::App& app);
std::string ZshCompletion(const CLI::App& app);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_COMPLETION_H_
