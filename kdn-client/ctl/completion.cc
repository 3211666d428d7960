#include "kdn-client/ctl/completion.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "kdn-client/ctl/app_walk.h"

namespace kdn::ctl {
namespace {

// Values that there are only a few of, by flag or by the name of the positional.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kChoices = {{
    {"--output", "table json"},
    {"--ack", "memory durable"},
    {"--codec", "raw zstd q8 q4 cachegen"},
    {"--policy", "lru s3fifo wtinylfu gdsf prefix"},
    {"--tier", "memory disk disk-2 disk-3"},
    {"SHELL", "bash zsh man"},
}};

std::string_view ChoicesOf(const OptionFacts& option) {
  for (const auto& [name, choices] : kChoices) {
    if (option.names.front() == name) return choices;
  }
  return "";
}

bool IsFile(const OptionFacts& option) {
  return option.type == "FILE" || option.names.front() == "FILE" || option.names.front() == "TRACE";
}

std::string Joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string joined;
  for (const std::string& word : words) {
    if (!joined.empty()) joined += separator;
    joined += word;
  }
  return joined;
}

std::string FlagNames(const std::vector<OptionFacts>& options) {
  std::vector<std::string> names;
  std::set<std::string> listed;
  for (const OptionFacts& option : options) {
    if (option.positional || !listed.insert(option.names.front()).second) continue;
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return Joined(names, " ");
}

// The words that may follow a command's name to say what it is to do.
std::string UnderNames(const CommandFacts& command) {
  std::vector<std::string> names;
  for (const UnderFacts& under : command.under) names.push_back(under.name);
  return Joined(names, " ");
}

// "--output:  COMPREPLY=…" for each flag that takes a value, each once.
void AddValueCases(const std::vector<OptionFacts>& options, std::set<std::string>& done, std::string& out) {
  for (const OptionFacts& option : options) {
    if (option.positional || !option.takes_value) continue;
    if (!done.insert(option.names.front()).second) continue;
    const std::string_view choices = ChoicesOf(option);
    std::string action = "return";
    if (!choices.empty()) action = fmt::format("COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")); return", choices);
    if (IsFile(option)) action = "COMPREPLY=($(compgen -f -- \"$cur\")); return";
    out += fmt::format("    {}) {} ;;\n", Joined(option.names, "|"), action);
  }
}

std::string ZshQuoted(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      if (c == '[' || c == ']' || c == ':' || c == '\\') quoted += '\\';
      quoted += c;
    }
  }
  return quoted;
}

std::string ZshValue(const OptionFacts& option) {
  const std::string_view choices = ChoicesOf(option);
  const std::string name = option.type.empty() ? option.names.front() : option.type;
  if (!choices.empty()) return fmt::format(":{}:({})", ZshQuoted(name), choices);
  return fmt::format(":{}:{}", ZshQuoted(name), IsFile(option) ? "_files" : "");
}

void AddZshArguments(const std::vector<OptionFacts>& options, const std::string& indent, std::string& out) {
  for (const OptionFacts& option : options) {
    if (option.positional) {
      out += fmt::format("{}'{}{}' \\\n", indent, option.repeatable ? "*" : "", ZshValue(option));
      continue;
    }
    for (const std::string& name : option.names) {
      out += fmt::format("{}'{}{}[{}]{}' \\\n", indent, option.repeatable ? "*" : "", name, ZshQuoted(option.help),
                         option.takes_value ? ZshValue(option) : "");
    }
  }
}

}  // namespace

std::string BashCompletion(const CLI::App& app) {
  const std::vector<CommandFacts> commands = CommandsOf(app);
  const std::vector<OptionFacts> global = OptionsOf(app);
  std::vector<std::string> names;
  for (const CommandFacts& command : commands) names.push_back(command.name);

  std::string out = "# Bash completion of kdnctl; made by `kdnctl completion bash`.\n";
  out += "_kdnctl() {\n";
  out += "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= flags= word\n";
  out += "  COMPREPLY=()\n";
  out += "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n";
  out += fmt::format("    case $word in {}) command=$word; break ;; esac\n", Joined(names, "|"));
  out += "  done\n";
  out += "  case $prev in\n";
  std::set<std::string> done;
  AddValueCases(global, done, out);
  for (const CommandFacts& command : commands) {
    AddValueCases(command.options, done, out);
    for (const UnderFacts& under : command.under) AddValueCases(under.options, done, out);
  }
  out += "  esac\n";
  out += "  case $command in\n";
  for (const CommandFacts& command : commands) {
    std::vector<OptionFacts> options = command.options;
    for (const UnderFacts& under : command.under)
      options.insert(options.end(), under.options.begin(), under.options.end());
    out += fmt::format("    {}) flags=\"{}\" ;;\n", command.name, FlagNames(options));
  }
  out += "  esac\n";
  out += "  if [[ $cur == -* ]]; then\n";
  out += fmt::format("    COMPREPLY=($(compgen -W \"$flags {}\" -- \"$cur\"))\n", FlagNames(global));
  out += "    return\n  fi\n";
  out += "  case $command in\n";
  out += fmt::format("    '') COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n", Joined(names, " "));
  for (const CommandFacts& command : commands) {
    if (!command.under.empty()) {
      const std::string words = UnderNames(command);
      out += fmt::format(
          "    {}) [[ $prev == {} ]] && COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) || "
          "COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n",
          command.name, command.name, words);
      continue;
    }
    for (const OptionFacts& option : command.options) {
      if (!option.positional) continue;
      const std::string_view choices = ChoicesOf(option);
      if (!choices.empty()) {
        out += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n", command.name, choices);
      } else if (IsFile(option)) {
        out += fmt::format("    {}) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n", command.name);
      }
    }
  }
  out += "  esac\n}\ncomplete -F _kdnctl kdnctl\n";
  return out;
}

std::string ZshCompletion(const CLI::App& app) {
  const std::vector<CommandFacts> commands = CommandsOf(app);
  std::string out = "#compdef kdnctl\n# Zsh completion of kdnctl; made by `kdnctl completion zsh`.\n";
  out += "_kdnctl() {\n  local state line\n  local -a global\n  global=(\n";
  std::string global;
  AddZshArguments(OptionsOf(app), "    ", global);
  // In an array no line is continued.
  for (size_t at = global.find(" \\\n"); at != std::string::npos; at = global.find(" \\\n"))
    global.replace(at, 3, "\n");
  out += global + "  )\n";
  out += "  _arguments -C $global '1:command:->command' '*::argument:->argument'\n";
  out += "  case $state in\n    command)\n      local -a commands\n      commands=(\n";
  for (const CommandFacts& command : commands) {
    out += fmt::format("        '{}:{}'\n", command.name, ZshQuoted(command.summary));
  }
  out += "      )\n      _describe command commands\n      ;;\n    argument)\n      case $line[1] in\n";
  for (const CommandFacts& command : commands) {
    out += fmt::format("        {})\n          _arguments \\\n", command.name);
    if (!command.under.empty()) out += fmt::format("            '1:what:({})' \\\n", UnderNames(command));
    AddZshArguments(command.options, "            ", out);
    std::set<std::string> listed;
    for (const OptionFacts& option : command.options) listed.insert(option.names.front());
    for (const UnderFacts& under : command.under) {
      std::vector<OptionFacts> more;
      for (const OptionFacts& option : under.options) {
        if (!option.positional && listed.insert(option.names.front()).second) more.push_back(option);
      }
      AddZshArguments(more, "            ", out);
    }
    if (!command.under.empty()) out += "            '*:argument:_files' \\\n";
    out += "            $global\n          ;;\n";
  }
  out += "      esac\n      ;;\n  esac\n}\n";
  out += "if [ \"$funcstack[1]\" = _kdnctl ]; then _kdnctl \"$@\"; else compdef _kdnctl kdnctl; fi\n";
  return out;
}

}  // namespace kdn::ctl
