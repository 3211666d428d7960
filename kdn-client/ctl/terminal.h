// Terminal: what a command reads and writes. Results go to `out`, all else (errors, questions, progress) to `err`.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_TERMINAL_H_
#define KDN_KDN_CLIENT_CTL_TERMINAL_H_

#include <iostream>

namespace kdn::ctl {

struct Terminal {
  std::ostream& out = std::cout;
  std::ostream& err = std::cerr;
  std::istream& in = std::cin;
  // Whether a person sits there.
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool in_is_terminal = false;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_TERMINAL_H_
