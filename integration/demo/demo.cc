#include "integration/demo/demo.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/time/clock.h"
#include "integration/process/child_process.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using Json = nlohmann::json;
using Print = absl::FunctionRef<void(const std::string&)>;

constexpr absl::Duration kNodeStart = absl::Seconds(20);
constexpr absl::Duration kEngineRun = absl::Minutes(10);
constexpr uint32_t kSecondTokens = 1280;
constexpr const char* kQuestion = "\n\nQuestion: What does this document allow, and on what terms?\nAnswer:";

struct RunResult {
  std::string name;
  Json report;

  double Ttft() const { return report.at("ttft_ms"); }
};

std::string FileText(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string LastLine(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "it said nothing";
  const size_t begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

std::string Bytes(double bytes) { return bytes == 0 ? "-" : fmt::format("{:.1f} MB", bytes / 1e6); }

class Demo {
 public:
  Demo(const DemoOptions& options, Print print) : options_(options), print_(print) {}

  absl::Status Run();

 private:
  absl::Status WritePrompts();
  absl::Status StartNode();
  absl::StatusOr<Json> RunEngine(const std::string& prompt, bool with_node, bool store);
  absl::Status RunAndKeep(const std::string& name, bool with_node, bool store);
  absl::Status CheckCancelled() const;
  absl::Status CheckStored(const Json& report, const std::string& prompt) const;
  absl::Status CheckFetched(const RunResult& run, const std::string& tier) const;
  absl::Status CheckRuns() const;
  void PrintTable() const;

  const DemoOptions& options_;
  Print print_;
  TemporaryDirectory directory_{"kdn-demo-"};
  std::optional<ChildProcess> node_;
  std::string target_;
  std::vector<RunResult> runs_;
};

absl::Status Demo::CheckCancelled() const {
  if (options_.cancelled != nullptr && *options_.cancelled) return Cancelled("interrupted");
  return absl::OkStatus();
}

absl::Status Demo::WritePrompts() {
  const std::string text = FileText(options_.document);
  if (text.size() < size_t{options_.tokens} + kSecondTokens) {
    return InvalidArgument("{} has {} bytes; the demo needs {} of text (a byte is a token)", options_.document,
                           text.size(), options_.tokens + kSecondTokens);
  }
  std::ofstream(directory_.path() / "prompt") << text.substr(0, options_.tokens) << kQuestion;
  std::ofstream(directory_.path() / "second") << text.substr(text.size() - kSecondTokens) << kQuestion;
  return absl::OkStatus();
}

absl::Status Demo::StartNode() {
  const std::filesystem::path ports = directory_.path() / "ports";
  std::filesystem::remove(ports);
  const std::filesystem::path log = directory_.path() / "node.log";
  absl::StatusOr<ChildProcess> node =
      ChildProcess::Start({options_.node, "--listen", "127.0.0.1:0", "--metrics-listen", "", "--port-file",
                           ports.string(), "--disk-path", (directory_.path() / "disk").string()},
                          log.string());
  if (!node.ok()) return Annotate(node.status(), "kdn-node");
  node_.emplace(*std::move(node));
  const absl::StatusOr<std::string> written = WaitForFile(ports, kNodeStart, *node_);
  if (!written.ok()) return Unavailable("kdn-node did not start: {}", LastLine(FileText(log)));
  std::istringstream(*written) >> target_;
  return absl::OkStatus();
}

absl::StatusOr<Json> Demo::RunEngine(const std::string& prompt, bool with_node, bool store) {
  const std::filesystem::path output = directory_.path() / "engine.out";
  std::filesystem::remove(output);
  std::vector<std::string> argv = {options_.engine,
                                   "--random-model",
                                   options_.model,
                                   "--kv-dtype",
                                   options_.kv_dtype,
                                   "--prompt-file",
                                   (directory_.path() / prompt).string(),
                                   "--generate",
                                   std::to_string(options_.generate),
                                   "--json"};
  if (with_node) argv.insert(argv.end(), {"--node", target_, "--store", store ? "durable" : "none"});
  absl::StatusOr<ChildProcess> engine = ChildProcess::Start(argv, output.string());
  if (!engine.ok()) return Annotate(engine.status(), "kdn-engine");
  const absl::Time deadline = absl::Now() + kEngineRun;
  absl::StatusOr<int> code = engine->Wait(absl::Milliseconds(200));
  while (!code.ok()) {
    KDN_RETURN_IF_ERROR(CheckCancelled());
    if (absl::Now() > deadline)
      return DeadlineExceeded("kdn-engine still runs after {}", absl::FormatDuration(kEngineRun));
    code = engine->Wait(absl::Milliseconds(200));
  }
  KDN_RETURN_IF_ERROR(CheckCancelled());
  const std::string text = FileText(output);
  if (*code != 0) return Internal("kdn-engine ended with {}: {}", *code, LastLine(text));
  Json report = Json::parse(LastLine(text), /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!report.is_object()) return Internal("kdn-engine's report is not JSON: {}", LastLine(text));
  return report;
}

absl::Status Demo::RunAndKeep(const std::string& name, bool with_node, bool store) {
  absl::StatusOr<Json> report = RunEngine("prompt", with_node, store);
  if (!report.ok()) return Annotate(report.status(), name);
  runs_.push_back({name, *std::move(report)});
  const RunResult& run = runs_.back();
  print_(fmt::format("{:<28} first token after {:.0f} ms", run.name, run.Ttft()));
  return absl::OkStatus();
}

absl::Status Demo::CheckStored(const Json& report, const std::string& prompt) const {
  const size_t missing = report.at("store_failures").size();
  if (missing != 0) {
    return Internal("{}: {} chunks were not stored: {}", prompt, missing, report.at("store_failures")[0].dump());
  }
  if (report.at("chunks_stored") == 0) {
    return Internal("{}: not one chunk was stored: {}", prompt, report.at("miss_details").dump());
  }
  return absl::OkStatus();
}

absl::Status Demo::CheckFetched(const RunResult& run, const std::string& tier) const {
  const size_t stored = runs_[1].report.at("chunks_stored");
  const size_t found = run.report.at("chunks_found");
  if (found < stored) {
    return DataLoss("'{}' found {} chunks of {} that were acknowledged: {}", run.name, found, stored,
                    run.report.at("miss_details").dump());
  }
  if (run.report.at("tier") != tier) {
    return Internal("'{}' fetched from {}, not from {}: {}", run.name, run.report.at("tier").dump(), tier,
                    run.report.at("miss_details").dump());
  }
  const double most = kMostOfColdTime * runs_[0].Ttft();
  if (run.Ttft() > most) {
    return DeadlineExceeded("'{}' took {:.0f} ms to its first token; a fifth of the cold run is {:.0f} ms", run.name,
                            run.Ttft(), most);
  }
  return absl::OkStatus();
}

absl::Status Demo::CheckRuns() const {
  for (const RunResult& run : runs_) {
    if (run.report.at("all_logits_sha256") != runs_[0].report.at("all_logits_sha256")) {
      return DataLoss("the logits of '{}' differ from those of '{}': {} is not {}", run.name, runs_[0].name,
                      run.report.at("all_logits_sha256").dump(), runs_[0].report.at("all_logits_sha256").dump());
    }
  }
  KDN_RETURN_IF_ERROR(CheckFetched(runs_[2], "memory"));
  return CheckFetched(runs_[3], "disk");
}

void Demo::PrintTable() const {
  print_("");
  print_(fmt::format("{:<28} {:>19} {:>9} {:>14} {:>14} {:>10}  {}", "run", "time to first token", "speed-up",
                     "tokens reused", "bytes on wire", "raw/wire", "tier"));
  for (const RunResult& run : runs_) {
    const bool fetched = run.report.at("encoded_bytes_fetched") != 0;
    const char* way = fetched ? "fetched" : "stored";
    const double wire = run.report.at(fmt::format("encoded_bytes_{}", way));
    const double raw = run.report.at(fmt::format("raw_bytes_{}", way));
    print_(fmt::format("{:<28} {:>16.0f} ms {:>8.1f}x {:>6} of {:>4} {:>14} {:>10}  {}", run.name, run.Ttft(),
                       runs_[0].Ttft() / run.Ttft(), run.report.at("reused_tokens").get<int>(),
                       run.report.at("prompt_tokens").get<int>(), Bytes(wire),
                       wire == 0 ? "-" : fmt::format("{:.2f}", raw / wire), run.report.at("tier").get<std::string>()));
  }
  print_("");
}

absl::Status Demo::Run() {
  KDN_RETURN_IF_ERROR(WritePrompts());
  print_(fmt::format("{} tokens of {} and a question, on a Llama of random weights ({})", options_.tokens,
                     options_.document, options_.model));
  KDN_RETURN_IF_ERROR(RunAndKeep("cold, without KDN", /*with_node=*/false, /*store=*/false));
  KDN_RETURN_IF_ERROR(StartNode());
  KDN_RETURN_IF_ERROR(RunAndKeep("cold, storing durably", /*with_node=*/true, /*store=*/true));
  KDN_RETURN_IF_ERROR(CheckStored(runs_.back().report, runs_.back().name));
  KDN_RETURN_IF_ERROR(RunAndKeep("new process, fetching", /*with_node=*/true, /*store=*/false));

  // The node dies the moment after a store was acknowledged, with whatever it was still about to do.
  KDN_ASSIGN_OR_RETURN(const Json second, RunEngine("second", /*with_node=*/true, /*store=*/true));
  node_->Kill();
  KDN_RETURN_IF_ERROR(CheckStored(second, "second document"));
  print_("kill -9 of the node, right after it acknowledged another document; restart on the same disk");
  KDN_RETURN_IF_ERROR(StartNode());
  KDN_RETURN_IF_ERROR(RunAndKeep("after kill -9, fetching", /*with_node=*/true, /*store=*/false));
  KDN_ASSIGN_OR_RETURN(const Json again, RunEngine("second", /*with_node=*/true, /*store=*/false));
  node_.reset();

  PrintTable();
  KDN_RETURN_IF_ERROR(CheckRuns());
  if (again.at("chunks_found") < second.at("chunks_stored")) {
    return DataLoss("after kill -9, {} chunks of the {} last acknowledged were found: {}",
                    again.at("chunks_found").get<int>(), second.at("chunks_stored").get<int>(),
                    again.at("miss_details").dump());
  }
  if (again.at("all_logits_sha256") != second.at("all_logits_sha256")) {
    return DataLoss("after kill -9, the second document's logits differ");
  }
  print_(fmt::format(
      "The logits of all four runs are identical to the bit, over the first token and {} more (SHA-256 {}…). Time to "
      "first token runs from having the tokens to having the first logits; loading the model is the same for all and "
      "left out. Every chunk that was acknowledged durable was there after kill -9: {} of the document, and {} of "
      "another one acknowledged right before it.",
      options_.generate, runs_[0].report.at("all_logits_sha256").get<std::string>().substr(0, 12),
      runs_[1].report.at("chunks_stored").get<int>(), second.at("chunks_stored").get<int>()));
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDemo(const DemoOptions& options, Print print) { return Demo(options, print).Run(); }

}  // namespace kdn
