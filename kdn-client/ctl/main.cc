// kdnctl: the operators' command line.
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "kdn-client/ctl/app.h"

int main(int argc, char** argv) {
  // What a command has to say of a failure it says itself; libraries are not heard.
  gpr_set_log_function([](gpr_log_func_args*) {});
  spdlog::set_level(spdlog::level::off);
  std::ios::sync_with_stdio(false);
  kdn::ctl::Terminal terminal;
  terminal.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  terminal.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  terminal.in_is_terminal = ::isatty(STDIN_FILENO) == 1;
  return kdn::ctl::RunCtl(argc, argv, terminal);
}
