#include "kdn-client/ctl/report.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include "kdn-client/ctl/exit_code.h"
#include "kdn-client/ctl/progress.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

TEST(ReportTest, ValuesReadAsPeopleWriteThem) {
  EXPECT_EQ(ToText(Show::kCount, 1234567), "1,234,567");
  EXPECT_EQ(ToText(Show::kCount, 999), "999");
  EXPECT_EQ(ToText(Show::kBytes, 0), "0 B");
  EXPECT_EQ(ToText(Show::kBytes, 1023), "1023 B");
  EXPECT_EQ(ToText(Show::kBytes, 1024), "1.0 KiB");
  EXPECT_EQ(ToText(Show::kBytes, (1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(ToText(Show::kBytes, std::numeric_limits<uint64_t>::max()), "16384.0 PiB");
  EXPECT_EQ(ToText(Show::kRate, 3 << 20), "3.0 MiB/s");
  EXPECT_EQ(ToText(Show::kPercent, 48.06), "48.1 %");
  EXPECT_EQ(ToText(Show::kSeconds, 0.0000021), "2 us");
  EXPECT_EQ(ToText(Show::kSeconds, 0.0015), "1.5 ms");
  EXPECT_EQ(ToText(Show::kSeconds, 75), "1 min 15 s");
  EXPECT_EQ(ToText(Show::kSeconds, 90061), "1 d 1 h");
  EXPECT_EQ(ToText(Show::kFixed, 1.50), "1.5");
  EXPECT_EQ(ToText(Show::kBytes, Json()), "-");
  EXPECT_EQ(ToText(Show::kText, true), "yes");
  EXPECT_EQ(ToText(Show::kText, Json::array({"a", "b"})), "a, b");
  EXPECT_EQ(ToText(Show::kId, std::string(64, 'f')), std::string(16, 'f'));
}

TEST(ReportTest, WhatAPeerSentCannotMoveTheCursor) { EXPECT_EQ(ToText(Show::kText, "a\x1b[2Jb\nc"), "a [2Jb c"); }

TEST(ReportTest, ATableLinesItsColumnsUp) {
  Report report;
  report.Add("epoch", "Epoch", Show::kCount, 12);
  report.Add("hidden", "", Show::kCount, 7);
  Table& table =
      report.AddTable("nodes", "Nodes", {{"id", "NODE"}, {"bytes", "BYTES", Show::kBytes}, {"only_json", ""}});
  table.Add({"n1", 1024, 1});
  table.Add({"node-22", 0});
  report.Note("and that is all");
  std::ostringstream out;
  report.Print(Format::kTable, out);
  EXPECT_EQ(out.str(),
            "Epoch  12\n"
            "\n"
            "Nodes\n"
            "  NODE       BYTES\n"
            "  n1       1.0 KiB\n"
            "  node-22      0 B\n"
            "\n"
            "and that is all\n");
}

TEST(ReportTest, JsonKeepsValuesAsTheyAre) {
  Report report;
  report.Add("epoch", "Epoch", Show::kCount, 12);
  report.Add("hidden", "", Show::kBytes, 1023);
  report.AddTable("nodes", "Nodes", {{"id", "NODE"}, {"bytes", "", Show::kBytes}}).Add({"n1"});
  report.Note("for people");
  std::ostringstream out;
  report.Print(Format::kJson, out);
  EXPECT_EQ(Json::parse(out.str()),
            Json::parse(R"({"epoch": 12, "hidden": 1023, "nodes": [{"id": "n1", "bytes": null}]})"));
}

TEST(ReportTest, BytesThatAreNoTextStillMakeJson) {
  Report report;
  report.Add("name", "Name", Show::kText, "\xff\xfe");
  std::ostringstream out;
  report.Print(Format::kJson, out);
  EXPECT_FALSE(Json::parse(out.str(), nullptr, /*allow_exceptions=*/false).is_discarded());
}

TEST(ProgressTest, IsSilentWhereThereIsNoTerminalAndCleansUpWhereThereIsOne) {
  std::ostringstream err;
  Terminal pipe{.err = err};
  Progress(pipe, "verify").Update(1, 2);
  EXPECT_EQ(err.str(), "");
  Terminal terminal{.err = err, .err_is_terminal = true};
  ManualSteadyClock clock;
  {
    Progress progress(terminal, "verify", clock);
    progress.Update(1, 4, "1 KiB");
    EXPECT_NE(err.str().find("25 %"), std::string::npos) << err.str();
    const size_t drawn = err.str().size();
    progress.Update(2, 4);
    EXPECT_EQ(err.str().size(), drawn) << "too soon to draw again";
    clock.Advance(absl::Seconds(2));
    progress.Update(2, 4);
    EXPECT_NE(err.str().find("2.0 s left"), std::string::npos) << err.str();
  }
  EXPECT_TRUE(err.str().ends_with("\r\x1b[K")) << "nothing of it stays";
}

TEST(ExitCodeTest, EveryFailureHasItsOwn) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kDone);
  EXPECT_EQ(ExitCodeOf(InvalidArgument("x")), ExitCode::kUsage);
  EXPECT_EQ(ExitCodeOf(NotFound("x")), ExitCode::kNotFound);
  EXPECT_EQ(ExitCodeOf(Unavailable("x")), ExitCode::kUnreachable);
  EXPECT_EQ(ExitCodeOf(DeadlineExceeded("x")), ExitCode::kDeadline);
  EXPECT_EQ(ExitCodeOf(absl::AbortedError("x")), ExitCode::kNotConfirmed);
  EXPECT_EQ(ExitCodeOf(DataLoss("x")), ExitCode::kFailed);
  for (size_t i = 0; i < kExitCodes.size(); ++i) EXPECT_EQ(static_cast<size_t>(kExitCodes[i].code), i);
}

}  // namespace
}  // namespace kdn::ctl
