#include "kdn-client/ctl/man_page.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string_view>
#include <vector>

#include "kdn-client/ctl/app_walk.h"
#include "kdn-client/ctl/exit_code.h"

namespace kdn::ctl {
namespace {

std::string Escaped(std::string_view text) {
  std::string escaped;
  if (!text.empty() && (text.front() == '.' || text.front() == '\'')) escaped += "\\&";
  for (const char c : text) {
    if (c == '\\') {
      escaped += "\\e";
    } else if (c == '-') {
      escaped += "\\-";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string Bold(std::string_view text) { return "\\fB" + Escaped(text) + "\\fR"; }
std::string Italic(std::string_view text) { return "\\fI" + Escaped(text) + "\\fR"; }

std::string Synopsis(const std::string& name, const std::vector<OptionFacts>& options) {
  std::string line = Bold("kdnctl " + name);
  for (const OptionFacts& option : options) {
    if (option.positional) {
      std::string word = Italic(option.names.front()) + (option.repeatable ? "..." : "");
      line += option.required ? " " + word : " [" + word + "]";
    } else if (option.required) {
      line += " " + Bold(option.names.front()) + " " + Italic(option.type);
    }
  }
  return line + " [flags]";
}

void AddOption(const OptionFacts& option, std::string& out) {
  std::string names;
  for (const std::string& name : option.names) {
    if (!names.empty()) names += ", ";
    names += option.positional ? Italic(name) : Bold(name);
  }
  if (!option.positional && option.takes_value && !option.type.empty()) names += " " + Italic(option.type);
  std::string help = Escaped(option.help);
  if (!option.preset.empty()) help += fmt::format(" (default: {})", Escaped(option.preset));
  if (!option.env.empty()) help += fmt::format("; the environment's {} says the same", Bold(option.env));
  out += fmt::format(".TP\n{}\n{}.\n", names, help);
}

void AddCommand(const std::string& name, const std::string& summary, const std::vector<OptionFacts>& options,
                std::string& out) {
  out += fmt::format(".PP\n{}\n.RS\n{}.\n", Synopsis(name, options), Escaped(summary));
  for (const OptionFacts& option : options) {
    if (option.names.front() != "--help") AddOption(option, out);
  }
  out += ".RE\n";
}

constexpr std::string_view kDescription = R"(.B kdnctl
asks KDN nodes and placement daemons how they stand, moves and erases what they hold, and checks them.
It speaks to one node (\fB\-\-node\fR) or to a cluster, by its placement daemons (\fB\-\-placement\fR); with both it speaks
to one node of the cluster, named by its id or its address.
Results go to standard output, as a table or as JSON; questions, errors and progress go to standard error, progress on a
terminal only.
.PP
Commands that erase or move something ask before on a terminal, and refuse to go on without one, unless
\fB\-\-yes\fR is given.
.PP
A chunk is named by its key, 64 hexadecimal digits.
Where a command takes keys, \fB@\fIFILE\fR stands for the keys in a file, one a line, and \fB\-\fR for those on standard input.
A space is named by its id, by the first digits of it (at least four) where nodes hold chunks of it, or by a file that has its
canonical bytes.
Durations are written as 90s, 10m or 1h, sizes as 4096, 512MiB or 4GiB.
)";

constexpr std::string_view kExamples = R"(.TP
.B kdnctl \-\-placement 10.0.0.1:7411 doctor
Checks all daemons of a cluster; exits with 6 when there is something to mend.
.TP
.B kdnctl why 0f3a... \-o json
Says where a chunk is, or why it is nowhere.
.TP
.B kdnctl warm \-\-text manual.txt \-\-space 5be1
Brings the chunks of a document to memory, before anyone asks for them.
.TP
.B kdnctl export \-\-space 5be1 space.kdna && kdnctl \-\-node other:7401 import space.kdna
Copies a space from one node to another. An import that was broken off is run again: what is held already is not sent.
.TP
.B kdnctl replay conversation_trace.jsonl \-\-memory 16GiB,32GiB
What share of a recorded trace would have hit, with so much memory.
)";

}  // namespace

std::string ManPage(const CLI::App& app) {
  const std::vector<CommandFacts> commands = CommandsOf(app);
  std::string out = ".\\\" Made by `kdnctl completion man`.\n";
  out += ".TH KDNCTL 1 \"\" \"kdnctl " KDN_VERSION "\" \"KDN\"\n";
  out += ".SH NAME\nkdnctl \\- look after KDN nodes and clusters\n";
  out += ".SH SYNOPSIS\n.B kdnctl\n[flags] \\fICOMMAND\\fR [arguments]\n";
  out += ".SH DESCRIPTION\n";
  out += kDescription;
  out += ".SH FLAGS OF ALL COMMANDS\n";
  for (const OptionFacts& option : OptionsOf(app)) AddOption(option, out);
  out += ".SH COMMANDS\n";
  std::string group;
  for (const CommandFacts& command : commands) {
    if (command.group != group) out += fmt::format(".SS {}\n", Escaped(command.group));
    group = command.group;
    if (command.runs_alone) {
      AddCommand(command.name, command.summary, command.options, out);
    } else {
      std::string words;
      for (const UnderFacts& under : command.under) words += (words.empty() ? "" : "|") + under.name;
      out += fmt::format(".PP\n{} {} [flags]\n.RS\n{}:\n.RE\n", Bold("kdnctl " + command.name), Bold(words),
                         Escaped(command.summary));
    }
    for (const UnderFacts& under : command.under) {
      AddCommand(command.name + " " + under.name, under.summary, under.options, out);
    }
  }
  out += ".SH EXIT STATUS\n";
  for (const ExitCodeMeaning& code : kExitCodes) {
    out += fmt::format(".TP\n.B {}\n{}\n", static_cast<int>(code.code), Escaped(code.meaning));
  }
  out += ".SH EXAMPLES\n";
  out += kExamples;
  out += ".SH SEE ALSO\nThe daemons' own help: \\fBkdn\\-node \\-\\-help\\fR, \\fBkdn\\-placement \\-\\-help\\fR.\n";
  return out;
}

}  // namespace kdn::ctl
