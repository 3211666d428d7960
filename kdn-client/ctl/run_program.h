// RunProgram: another program in the place of kdnctl for a while: it has the terminal, and kdnctl waits.
//
//   KDN_ASSIGN_OR_RETURN(const std::string path, FindProgram("kdn-calibrate"));
//   KDN_ASSIGN_OR_RETURN(const int exit_code, RunProgram({path, "--out", "profile.json"}));
//
// Thread-safety: one thread at a time, as signals are the process's.
#ifndef KDN_KDN_CLIENT_CTL_RUN_PROGRAM_H_
#define KDN_KDN_CLIENT_CTL_RUN_PROGRAM_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::ctl {

// The path of a program: `name` itself when it has a slash; else the file of that name beside this program, or the
// first in PATH. NOT_FOUND says where it was looked for; INVALID_ARGUMENT: it is no program that may be run.
absl::StatusOr<std::string> FindProgram(const std::string& name);

// Runs argv[0], a path, with this process's standard streams, and waits for its end: its exit code, or 128 + the signal
// that ended it. What Ctrl-C means is up to the program; should this process die, the kernel ends the program.
// UNAVAILABLE: it cannot be started.
absl::StatusOr<int> RunProgram(const std::vector<std::string>& argv);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_RUN_PROGRAM_H_
