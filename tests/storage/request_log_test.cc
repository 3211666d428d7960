// The daemons' log: JSON whatever is logged, a line for each call that is wanted, and nobody waits for standard error.
#include "storage/base/request_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <sstream>
#include <string>
#include <thread>

#include "storage/base/daemon_process.h"
#include "storage/base/status.h"
#include "tests/storage/captured_log.h"

namespace kdn {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

std::string AllBytes() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  return bytes;
}

TEST(LogFormatTest, AJsonLineIsValidWhateverIsLogged) {
  const CapturedLog log({.all = true}, "n1");
  const auto logger = log.Logger("kdn-node");
  const std::vector<std::string> messages = {"plain",
                                             "",
                                             R"(a "quoted" back\slash)",
                                             "two\nlines\r\tand\x1b[31m colour",
                                             std::string("a\0b", 3),
                                             AllBytes(),
                                             "cut off \xe2\x82",
                                             "\xf0\x9f\x98\x80 whole",
                                             R"(","level":"forged","x":")",
                                             std::string(100'000, 'x')};
  for (const std::string& message : messages) logger->warn("{}", message);
  const std::vector<json> lines = log.Lines();
  ASSERT_EQ(lines.size(), messages.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(log.Texts()[i].find('\n'), log.Texts()[i].size() - 1) << "more than one line";
    EXPECT_EQ(lines[i].size(), 4u) << lines[i];
    EXPECT_EQ(lines[i]["level"], "warning");
    EXPECT_EQ(lines[i]["program"], "test");
    EXPECT_THAT(lines[i]["time"].get<std::string>(),
                MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z"));
  }
  for (const size_t valid : {0u, 1u, 2u, 3u, 4u, 7u, 8u, 9u}) EXPECT_EQ(lines[valid]["message"], messages[valid]);
  EXPECT_THAT(lines[6]["message"].get<std::string>(), StartsWith("cut off \xef\xbf\xbd"));
}

TEST(LogFormatTest, FieldsReadAsTextOrJson) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    LogFields fields(format);
    fields.Add("call", "fetch").Add("bytes", uint64_t{1} << 63).Add("error", "what \"came\" =\n").Add("empty", "");
    fields.AddCounts("found", std::array<LogFields::Count, 3>{{{"memory", 3}, {"disk", 0}, {"cold_disk", 1}}});
    fields.AddCounts("missed", std::array<LogFields::Count, 1>{{{"not_found", 0}}});
    if (format == LogFormat::kText) {
      EXPECT_EQ(
          fields.text(),
          R"(call=fetch bytes=9223372036854775808 error="what \"came\" =\n" empty="" found=memory:3,cold_disk:1)");
      continue;
    }
    const json parsed = json::parse("{" + fields.text() + "}");
    EXPECT_EQ(parsed["bytes"].get<uint64_t>(), uint64_t{1} << 63);
    EXPECT_EQ(parsed["error"], "what \"came\" =\n");
    EXPECT_EQ(parsed["found"], (json{{"memory", 3}, {"cold_disk", 1}}));
    EXPECT_FALSE(parsed.contains("missed"));
  }
}

TEST(LogFormatTest, FlagsNameWhatIsWrong) {
  EXPECT_EQ(*LogFormatFlag("--log-format", "json"), LogFormat::kJson);
  EXPECT_EQ(*LogFormatFlag("--log-format", "text"), LogFormat::kText);
  EXPECT_THAT(MessageOf(LogFormatFlag("--log-format", "xml").status()), HasSubstr("--log-format: 'xml'"));
}

absl::StatusOr<RequestFilter> Filter(const std::vector<std::string>& words) {
  return RequestFilterFlag("--log-requests", words, absl::Seconds(2));
}

TEST(RequestFilterTest, WordsSayWhichCallsAreLogged) {
  EXPECT_TRUE(Filter({"off"})->off());
  EXPECT_TRUE(Filter({"all"})->Wants(false, false, absl::ZeroDuration()));
  const RequestFilter some = *Filter({"failed", "slow"});
  EXPECT_FALSE(some.off());
  EXPECT_TRUE(some.Wants(/*has_failed=*/true, false, absl::ZeroDuration()));
  EXPECT_TRUE(some.Wants(false, false, absl::Seconds(2)));
  EXPECT_FALSE(some.Wants(false, /*is_sampled=*/true, absl::Seconds(1)));
  EXPECT_TRUE(Filter({"sampled"})->Wants(false, /*is_sampled=*/true, absl::ZeroDuration()));
  EXPECT_THAT(MessageOf(Filter({"some"}).status()), HasSubstr("--log-requests: 'some'"));
  EXPECT_THAT(MessageOf(Filter({"slow", "all"}).status()), HasSubstr("'all' stands alone"));
  EXPECT_THAT(MessageOf(Filter({"off", "slow"}).status()), HasSubstr("'off' stands alone"));
}

TEST(RequestLogTest, ALineTellsOfTheCallAndItsRequest) {
  const CapturedLog log({.all = true}, "n1");
  const TraceContext caller = NewTrace(/*sampled=*/true);
  const RequestSpan span = SpanOf(FormatTraceparent(caller));
  log.requests()->Write({.call = "fetch",
                         .span = span,
                         .peer = "10.0.0.1:1234",
                         .protocol = "bulk",
                         .status = Unavailable("away"),
                         .error = "away",
                         .failed = true,
                         .took = absl::Microseconds(1500)},
                        [](LogFields& fields) { fields.Add("bytes", 7); });
  ASSERT_EQ(log.Lines().size(), 1u);
  const json line = log.Lines()[0];
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["call"], "fetch");
  EXPECT_EQ(line["status"], "UNAVAILABLE");
  EXPECT_EQ(line["node"], "n1");
  EXPECT_EQ(line["request_id"], caller.RequestId());
  EXPECT_EQ(line["parent_span_id"], caller.SpanHex());
  EXPECT_EQ(line["span_id"], span.trace.SpanHex());
  EXPECT_NE(line["span_id"], line["parent_span_id"]);
  EXPECT_EQ(line["sampled"], 1);
  EXPECT_EQ(line["peer"], "10.0.0.1:1234");
  EXPECT_EQ(line["protocol"], "bulk");
  EXPECT_EQ(line["bytes"], 7);
  EXPECT_EQ(line["total_us"], 1500);
  EXPECT_EQ(line["error"], "away");
}

TEST(RequestLogTest, WhoeverNamesNoTraceOrAMalformedOneGetsANewOne) {
  for (const char* traceparent : {"", "nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"}) {
    const RequestSpan span = SpanOf(traceparent);
    EXPECT_TRUE(span.trace.valid());
    EXPECT_EQ(span.parent, SpanId{});
  }
}

TEST(RequestLogTest, WhatTheFilterDoesNotWantIsNotWritten) {
  const CapturedLog log({.failed = true}, "n1");
  log.requests()->Write({.call = "fetch"}, [](LogFields&) { ADD_FAILURE() << "work for nothing"; });
  EXPECT_EQ(log.Texts().size(), 0u);
  log.requests()->Write({.call = "fetch", .failed = true}, [](LogFields&) {});
  EXPECT_EQ(log.Texts().size(), 1u);
}

TEST(RequestLogTest, MethodsHaveTheNamesOfTheLog) {
  EXPECT_EQ(LoggedCallName("Fetch"), "fetch");
  EXPECT_EQ(LoggedCallName("ListHeldChunks"), "list_held_chunks");
}

// Standard error as a pipe that nobody reads, until Read.
class StalledStderr {
 public:
  StalledStderr() : saved_(dup(STDERR_FILENO)) {
    EXPECT_EQ(pipe2(ends_, O_CLOEXEC), 0);
    EXPECT_GT(fcntl(ends_[1], F_SETPIPE_SZ, 4096), 0);
    dup2(ends_[1], STDERR_FILENO);
    close(ends_[1]);
  }
  // Reads in the background, until the end.
  void Read() {
    reader_ = std::thread([this] {
      char buffer[4096];
      for (ssize_t n = read(ends_[0], buffer, sizeof buffer); n > 0; n = read(ends_[0], buffer, sizeof buffer)) {
        text_.append(buffer, static_cast<size_t>(n));
      }
    });
  }
  std::string End() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
    reader_.join();
    close(ends_[0]);
    return text_;
  }

 private:
  const int saved_;
  int ends_[2] = {-1, -1};
  std::thread reader_;
  std::string text_;
};

TEST(LoggingTest, AStalledStandardErrorHoldsNobodyUpAndTheRestIsCounted) {
  constexpr size_t kLines = 20'000;
  std::string written;
  uint64_t dropped = 0;
  {
    StalledStderr err;
    {
      const Logging logging("kdn-test", {.format = LogFormat::kJson});
      // More than the pipe and the queue hold; this would not come to its end if it waited.
      for (size_t i = 0; i < kLines; ++i) spdlog::info("line {} {}", i, std::string(100, 'x'));
      err.Read();
      dropped = logging.dropped()();
      const RequestLog requests({.all = true}, LogFormat::kJson, "n1", logging.fields());
      requests.Write({.call = "fetch"}, [](LogFields&) {});
      dropped = std::max(dropped, logging.dropped()());
    }
    written = err.End();
  }
  EXPECT_GT(dropped, 0u);
  std::istringstream in(written);
  size_t lines = 0;
  json last;
  for (std::string line; std::getline(in, line); ++lines) {
    last = json::parse(line, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(last.is_object()) << line;
  }
  EXPECT_EQ(lines + dropped, kLines + 1) << "what was neither written nor counted is lost";
  EXPECT_EQ(last["call"], "fetch") << "what came last is not what is dropped";
}

TEST(LoggingTest, LevelsHoldForMessagesAndOnlyOffForRequests) {
  const auto write = [](const std::string& level) {
    StalledStderr err;
    err.Read();
    {
      const Logging logging("kdn-test", {.level = level});
      spdlog::info("an ordinary message");
      const RequestLog requests({.all = true}, LogFormat::kText, "n1", logging.fields());
      requests.Write({.call = "fetch"}, [](LogFields&) {});
    }
    return err.End();
  };
  EXPECT_THAT(write("info"), HasSubstr("info an ordinary message\n"));
  EXPECT_THAT(write("warn"), Not(HasSubstr("ordinary")));
  EXPECT_THAT(write("warn"), HasSubstr("call=fetch status=OK node=n1 request_id="));
  EXPECT_EQ(write("off"), "");
}

}  // namespace
}  // namespace kdn
