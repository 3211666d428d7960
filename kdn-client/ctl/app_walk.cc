#include "kdn-client/ctl/app_walk.h"

#include <CLI/CLI.hpp>

namespace kdn::ctl {

std::vector<OptionFacts> OptionsOf(const CLI::App& app) {
  std::vector<OptionFacts> all;
  for (const CLI::Option* option : app.get_options()) {
    OptionFacts& facts = all.emplace_back();
    for (const std::string& name : option->get_lnames()) facts.names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) facts.names.push_back("-" + name);
    facts.positional = option->get_positional();
    if (facts.positional) facts.names = {option->get_name(/*positional=*/true)};
    facts.takes_value = option->get_items_expected_max() > 0;
    facts.type = facts.takes_value ? option->get_type_name() : "";
    facts.help = option->get_description();
    facts.preset = option->get_default_str();
    facts.env = option->get_envname();
    facts.group = option->get_group();
    facts.required = option->get_required();
    facts.repeatable = option->get_items_expected_max() > 1;
  }
  return all;
}

std::vector<CommandFacts> CommandsOf(const CLI::App& app) {
  std::vector<CommandFacts> all;
  const auto any = [](const CLI::App*) { return true; };
  for (const CLI::App* sub : app.get_subcommands(any)) {
    CommandFacts& command = all.emplace_back(CommandFacts{.name = sub->get_name(),
                                                          .group = sub->get_group(),
                                                          .summary = sub->get_description(),
                                                          .options = OptionsOf(*sub)});
    for (const CLI::App* under : sub->get_subcommands(any)) {
      command.under.push_back(
          {.name = under->get_name(), .summary = under->get_description(), .options = OptionsOf(*under)});
    }
    command.runs_alone = sub->get_require_subcommand_min() == 0;
  }
  return all;
}

}  // namespace kdn::ctl
