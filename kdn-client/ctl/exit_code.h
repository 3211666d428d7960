// ExitCode: what kdnctl's exit status means. Scripts rely on the numbers; kdnctl(1) lists them.
//
// Thread-safety: values; pure functions.
#ifndef KDN_KDN_CLIENT_CTL_EXIT_CODE_H_
#define KDN_KDN_CLIENT_CTL_EXIT_CODE_H_

#include <array>
#include <string_view>

#include "absl/status/status.h"

namespace kdn::ctl {

enum class ExitCode : int {
  kDone = 0,
  kFailed = 1,        // anything that no other code says
  kUsage = 2,         // the command line, or a file that it names, is not right
  kNotFound = 3,      // what was asked for is not there: a chunk, a space, a node, a lease
  kUnreachable = 4,   // no daemon answered, or not all that were needed
  kDeadline = 5,      // no answer within --deadline
  kProblems = 6,      // the check was made, and found something: verify, doctor
  kNotConfirmed = 7,  // nothing was done: the question was not answered with yes
  kPartly = 8,        // done for some, not for others; the output says which
};

struct ExitCodeMeaning {
  ExitCode code;
  std::string_view meaning;
};
extern const std::array<ExitCodeMeaning, 9> kExitCodes;

// The code for a command that failed so. ABORTED stands for a question not answered with yes.
ExitCode ExitCodeOf(const absl::Status& status);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_EXIT_CODE_H_
