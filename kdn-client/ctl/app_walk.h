// What a command line has, read back from CLI11: for completion scripts and the manual page, which so cannot drift from
// the flags that there are.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_CTL_APP_WALK_H_
#define KDN_KDN_CLIENT_CTL_APP_WALK_H_

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace kdn::ctl {

struct OptionFacts {
  std::vector<std::string> names;  // with their dashes, the long ones first; of a positional its name
  std::string type;                // empty for a flag
  std::string help;
  std::string preset;  // the default, empty: none
  std::string env;
  std::string group;
  bool takes_value = false;
  bool positional = false;
  bool required = false;
  bool repeatable = false;
};

// What stands behind a command's name to say what it is to do, as `show` in `kdnctl blend show`.
struct UnderFacts {
  std::string name;
  std::string summary;
  std::vector<OptionFacts> options;
};

struct CommandFacts {
  std::string name;
  std::string group;
  std::string summary;
  std::vector<OptionFacts> options;
  std::vector<UnderFacts> under = {};
  bool runs_alone = true;  // without one of `under`
};

std::vector<OptionFacts> OptionsOf(const CLI::App& app);
std::vector<CommandFacts> CommandsOf(const CLI::App& app);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_APP_WALK_H_
