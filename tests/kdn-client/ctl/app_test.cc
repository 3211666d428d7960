// The command line: what it takes, what it refuses, and that the manual page and the completion scripts say the same.
#include "kdn-client/ctl/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "kdn-client/ctl/app_walk.h"
#include "kdn-client/ctl/completion.h"
#include "kdn-client/ctl/man_page.h"

namespace kdn::ctl {
namespace {

using ::testing::HasSubstr;

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

Ran Kdnctl(std::vector<const char*> arguments) {
  std::ostringstream out;
  std::ostringstream err;
  std::istringstream in;
  Terminal terminal{.out = out, .err = err, .in = in};
  arguments.insert(arguments.begin(), "kdnctl");
  const int code = RunCtl(static_cast<int>(arguments.size()), arguments.data(), terminal);
  return {code, out.str(), err.str()};
}

std::string Committed(const std::string& name) {
  std::ifstream file(std::string(KDN_DEPLOY_DIR) + "/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(CtlAppTest, TheManualPageIsThatOfTheFlagsThereAre) {
  EXPECT_EQ(Committed("man/kdnctl.1"), ManPage(*CtlApp().app)) << "kdnctl completion man > deploy/man/kdnctl.1";
}

TEST(CtlAppTest, TheCompletionScriptsAreThoseOfTheFlagsThereAre) {
  EXPECT_EQ(Committed("completion/kdnctl.bash"), BashCompletion(*CtlApp().app))
      << "kdnctl completion bash > deploy/completion/kdnctl.bash";
  EXPECT_EQ(Committed("completion/_kdnctl"), ZshCompletion(*CtlApp().app))
      << "kdnctl completion zsh > deploy/completion/_kdnctl";
}

TEST(CtlAppTest, EveryCommandAndFlagIsInThem) {
  const CtlApp ctl;
  const std::string page = ManPage(*ctl.app);
  const std::string bash = BashCompletion(*ctl.app);
  const std::string zsh = ZshCompletion(*ctl.app);
  EXPECT_EQ(CommandsOf(*ctl.app).size(), Commands().size());
  for (const CommandFacts& command : CommandsOf(*ctl.app)) {
    EXPECT_THAT(page, HasSubstr("\\fBkdnctl " + command.name + "\\fR"));
    EXPECT_NE(command.summary, "") << command.name;
    for (const OptionFacts& option : command.options) {
      EXPECT_NE(option.help, "") << command.name << " " << option.names.front();
      if (option.positional) continue;
      EXPECT_THAT(bash, HasSubstr(option.names.front()));
      EXPECT_THAT(zsh, HasSubstr(option.names.front() + "["));
    }
  }
}

TEST(CtlAppTest, HelpIsForStandardOutput) {
  const Ran all = Kdnctl({"--help"});
  EXPECT_EQ(all.code, 0);
  for (const Command& command : Commands()) EXPECT_THAT(all.out, HasSubstr(command.name));
  const Ran one = Kdnctl({"drain", "--help"});
  EXPECT_EQ(one.code, 0);
  EXPECT_THAT(one.out, HasSubstr("--undo"));
  EXPECT_EQ(Kdnctl({"--version"}).out, "kdnctl " KDN_VERSION "\n");
}

TEST(CtlAppTest, ABadCommandLineExitsWith2AndSaysWhy) {
  const std::vector<std::pair<std::vector<const char*>, const char*>> bad = {
      {{}, "no command"},
      {{"frobnicate"}, "frobnicate"},
      {{"status", "--no-such-flag"}, "--no-such-flag"},
      {{"drain"}, "NODE"},
      {{"status", "-o", "yaml"}, "--output: 'yaml' is not table or json"},
      {{"status", "--deadline", "soon"}, "--deadline"},
      {{"status", "--node", "nowhere"}, "--node: target 'nowhere'"},
      {{"nodes"}, "name its placement daemons"},
      {{"nodes", "--placement", "here"}, "--placement"},
      {{"why", "abc"}, "key 'abc'"},
      {{"lookup"}, "name chunks"},
      {{"clear"}, "--space"},
      {{"weight", "n1", "0"}, "WEIGHT"},
      {{"unpin", "x=y"}, "lease 'x=y'"},
      {{"verify", "--tier", "tape"}, "--tier"},
      {{"put", "file", "--ack", "soon"}, "--ack"},
      {{"completion", "fish"}, "fish"},
      {{"replay", "--requests", "-1", "t"}, "--requests"},
  };
  for (const auto& [arguments, message] : bad) {
    const Ran ran = Kdnctl(arguments);
    EXPECT_EQ(ran.code, 2) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(message));
    EXPECT_EQ(ran.out, "");
    EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1) << ran.err;
  }
}

TEST(CtlAppTest, NobodyThereExitsWith4) {
  // Port 1 is privileged and served by nobody.
  const Ran node = Kdnctl({"status", "--node", "127.0.0.1:1", "--deadline", "20s"});
  EXPECT_EQ(node.code, 4) << node.err;
  EXPECT_THAT(node.err, HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(node.err, HasSubstr("is the daemon running"));
  EXPECT_EQ(Kdnctl({"nodes", "--placement", "127.0.0.1:1", "--deadline", "20s"}).code, 4);
}

TEST(CtlAppTest, GlobalFlagsStandBeforeOrBehindTheCommand) {
  EXPECT_EQ(Kdnctl({"--node", "127.0.0.1:1", "status"}).code, 4);
  EXPECT_EQ(Kdnctl({"status", "--node", "127.0.0.1:1"}).code, 4);
}

}  // namespace
}  // namespace kdn::ctl
