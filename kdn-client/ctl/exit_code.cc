#include "kdn-client/ctl/exit_code.h"

namespace kdn::ctl {

const std::array<ExitCodeMeaning, 9> kExitCodes = {{
    {ExitCode::kDone, "Done."},
    {ExitCode::kFailed, "Failed; the message says why."},
    {ExitCode::kUsage, "The command line, or a file that it names, is not right."},
    {ExitCode::kNotFound, "What was asked for is not there: a chunk, a space, a node, a lease."},
    {ExitCode::kUnreachable, "No daemon answered, or not all that were needed."},
    {ExitCode::kDeadline, "No answer came within --deadline."},
    {ExitCode::kProblems, "The check was made, and found something to mend (verify, doctor)."},
    {ExitCode::kNotConfirmed, "Nothing was done: the question was not answered with yes, and --yes was not given."},
    {ExitCode::kPartly, "Done for some, not for others; the output says for which."},
}};

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case absl::StatusCode::kUnavailable:
      return ExitCode::kUnreachable;
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kDeadline;
    case absl::StatusCode::kAborted:
      return ExitCode::kNotConfirmed;
    default:
      return ExitCode::kFailed;
  }
}

}  // namespace kdn::ctl
