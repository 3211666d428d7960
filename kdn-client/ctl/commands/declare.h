// What each file in this folder declares; commands.cc puts them into the table.
//
// Thread-safety: one thread.
#ifndef KDN_KDN_CLIENT_CTL_COMMANDS_DECLARE_H_
#define KDN_KDN_CLIENT_CTL_COMMANDS_DECLARE_H_

#include "kdn-client/ctl/command.h"

namespace kdn::ctl {

Runner DeclareStatus(CLI::App& app);
Runner DeclareTop(CLI::App& app);
Runner DeclareDoctor(CLI::App& app);
Runner DeclareEvents(CLI::App& app);
Runner DeclareBench(CLI::App& app);

Runner DeclareNodes(CLI::App& app);
Runner DeclareTopology(CLI::App& app);
Runner DeclareDrain(CLI::App& app);
Runner DeclareForget(CLI::App& app);
Runner DeclareWeight(CLI::App& app);
Runner DeclareRebalance(CLI::App& app);

Runner DeclareSpaces(CLI::App& app);
Runner DeclareLookup(CLI::App& app);
Runner DeclareWhy(CLI::App& app);
Runner DeclareWarm(CLI::App& app);
Runner DeclareVerify(CLI::App& app);

Runner DeclareGet(CLI::App& app);
Runner DeclarePut(CLI::App& app);
Runner DeclareExport(CLI::App& app);
Runner DeclareImport(CLI::App& app);
Runner DeclarePin(CLI::App& app);
Runner DeclareUnpin(CLI::App& app);
Runner DeclareDelete(CLI::App& app);
Runner DeclareClear(CLI::App& app);

Runner DeclareAnalytics(CLI::App& app);
Runner DeclareRecord(CLI::App& app);  // of `analytics record`
Runner DeclareReplay(CLI::App& app);
Runner DeclareBlend(CLI::App& app);
Runner DeclareBlendTier(CLI::App& app);  // of `blend tier`
Runner DeclareCompletion(CLI::App& app);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_COMMANDS_DECLARE_H_
