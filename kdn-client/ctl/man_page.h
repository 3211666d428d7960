// kdnctl(1), made of the command line itself.
//
// Thread-safety: a pure function.
#ifndef KDN_KDN_CLIENT_CTL_MAN_PAGE_H_
#define KDN_KDN_CLIENT_CTL_MAN_PAGE_H_

#include <string>

namespace CLI {
class App;
}

namespace kdn::ctl {

// In man(7)'s language, as deploy/man/kdnctl.1 has it; a test compares the two.
std::string ManPage(const CLI::App& app);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_MAN_PAGE_H_
