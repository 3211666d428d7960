// kdnctl analytics record: a trace of what engines ask for, in the format that kdnctl replay reads.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/ctl/chunk_input.h"
#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/fleet_queries.h"
#include "kdn-client/ctl/progress.h"
#include "kdn-client/ctl/trace_joiner.h"
#include "storage/analytics/trace_writer.h"
#include "storage/base/flag_values.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/steady_clock.h"
#include "storage/base/trace_context.h"

namespace kdn::ctl {
namespace {

constexpr std::chrono::milliseconds kTurn{100};

struct RecordFlags {
  std::string file;
  std::string space;
  std::string duration;
  std::string window = "2s";
  uint64_t requests = 0;
  double sample = 1;
};

volatile sig_atomic_t stop_asked = 0;

// Ctrl-C and SIGTERM end the recording, and not the program.
class StopKeys {
 public:
  StopKeys() {
    stop_asked = 0;
    struct sigaction stop = {};
    stop.sa_handler = [](int) { stop_asked = 1; };
    ::sigaction(SIGINT, &stop, &interrupt_);
    ::sigaction(SIGTERM, &stop, &terminate_);
  }
  ~StopKeys() {
    ::sigaction(SIGINT, &interrupt_, nullptr);
    ::sigaction(SIGTERM, &terminate_, nullptr);
  }
  StopKeys(const StopKeys&) = delete;
  StopKeys& operator=(const StopKeys&) = delete;

 private:
  struct sigaction interrupt_ = {};
  struct sigaction terminate_ = {};
};

// The streams of all nodes, each on a thread of its own.
class NodeStreams {
 public:
  NodeStreams(Fleet& fleet, const v1::RecordRequestsRequest& request) : nodes_(fleet.nodes().size()) {
    const TraceContext trace = CurrentTrace();
    for (size_t i = 0; i < nodes_.size(); ++i) {
      FleetNode& node = *fleet.nodes()[i];
      if (!node.up) {
        Ended(i, Unavailable("node {} at {}: it is down, says placement", node.name, node.address));
        continue;
      }
      AdminClient& admin = node.admin();
      threads_.emplace_back([this, i, &admin, request, trace] {
        const ScopedTrace scope(trace);
        Ended(i, admin.RecordRequests(request, nodes_[i].context,
                                      [this, i](const v1::RecordedRequests& message) { Took(i, message); }));
      });
    }
  }
  ~NodeStreams() { Stop(); }
  NodeStreams(const NodeStreams&) = delete;
  NodeStreams& operator=(const NodeStreams&) = delete;

  // What came since the last call; waits a turn for it. False: all streams have ended.
  bool Take(std::vector<v1::RecordedRequest>& requests) {
    MutexLock lock(mu_);
    if (queue_.empty() && running_ > 0) changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + kTurn);
    requests.swap(queue_);
    queue_.clear();
    return running_ > 0 || !requests.empty();
  }

  // Whether each node listens, or has ended.
  bool AllBegun() {
    MutexLock lock(mu_);
    return std::ranges::all_of(nodes_, [](const Node& node) { return node.listening || node.ended.has_value(); });
  }
  uint64_t Dropped() {
    MutexLock lock(mu_);
    uint64_t dropped = 0;
    for (const Node& node : nodes_) dropped += node.dropped;
    return dropped;
  }

  void Stop() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    for (Node& node : nodes_) node.context.TryCancel();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  // Of the nodes whose streams ended by themselves.
  std::map<size_t, absl::Status> Failed() {
    std::map<size_t, absl::Status> failed;
    MutexLock lock(mu_);
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].ended.has_value() && !nodes_[i].ended->ok()) failed.emplace(i, *nodes_[i].ended);
    }
    return failed;
  }

 private:
  struct Node {
    grpc::ClientContext context;
    // Guarded by mu_:
    bool listening = false;
    uint64_t dropped = 0;
    std::optional<absl::Status> ended = {};
  };

  void Took(size_t i, const v1::RecordedRequests& message) {
    MutexLock lock(mu_);
    nodes_[i].listening = true;
    nodes_[i].dropped = std::max(nodes_[i].dropped, message.dropped());
    queue_.insert(queue_.end(), message.requests().begin(), message.requests().end());
    changed_.NotifyAll();
  }
  void Ended(size_t i, absl::Status status) {
    MutexLock lock(mu_);
    if (stopping_ && absl::IsCancelled(status)) status = absl::OkStatus();
    if (!stopping_ && status.ok()) status = Unavailable("the node ended the stream");
    nodes_[i].ended = std::move(status);
    if (running_ > 0) --running_;
    changed_.NotifyAll();
  }

  std::vector<Node> nodes_;
  Mutex mu_;
  CondVar changed_;
  std::vector<v1::RecordedRequest> queue_ ABSL_GUARDED_BY(mu_);
  size_t running_ ABSL_GUARDED_BY(mu_) = nodes_.size();
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

// Written beside the file that it becomes, so that whoever looks finds all of it or none.
class TraceFile {
 public:
  static absl::StatusOr<std::unique_ptr<TraceFile>> Open(const std::string& path) {
    auto file = std::unique_ptr<TraceFile>(new TraceFile(path));
    if (!file->out_.is_open()) return InvalidArgument("{}: it cannot be written", file->part_);
    return file;
  }
  ~TraceFile() {
    if (!kept_) std::remove(part_.c_str());
  }
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  TraceWriter& writer() { return writer_; }
  absl::Status Keep() {
    out_.flush();
    if (!out_.good()) return DataLoss("{} cannot be written to the end; is the disk full?", part_);
    out_.close();
    std::error_code error;
    std::filesystem::rename(part_, path_, error);
    if (error) return Unavailable("{} cannot be made of {}: {}", path_, part_, error.message());
    kept_ = true;
    return absl::OkStatus();
  }

 private:
  explicit TraceFile(const std::string& path)
      : path_(path), part_(path + ".part"), out_(part_, std::ios::binary | std::ios::trunc), writer_(out_) {}

  const std::string path_;
  const std::string part_;
  std::ofstream out_;
  TraceWriter writer_;
  bool kept_ = false;
};

// Takes what comes, until there is a reason to end.
class Recording {
 public:
  Recording(Context& context, const RecordFlags& flags, const JoinerOptions& joiner, TraceFile& file)
      : context_(context),
        flags_(flags),
        file_(file),
        joiner_(joiner, [this](const JoinedRequest& request) { Write(request); }),
        progress_(context.terminal(), "record") {}

  absl::Status Run(NodeStreams& streams, absl::Duration duration) {
    const StopKeys keys;
    const SteadyClock::Point began = SteadyClock::Real().Now();
    std::vector<v1::RecordedRequest> requests;
    bool told = false;
    while (stop_asked == 0 && failed_.ok() && !Full()) {
      requests.clear();
      const bool goes_on = streams.Take(requests);
      const SteadyClock::Point now = SteadyClock::Real().Now();
      for (const v1::RecordedRequest& request : requests) {
        const absl::StatusOr<RecordedPiece> piece = PieceFromWire(request);
        if (!piece.ok()) return piece.status();
        joiner_.Add(*piece, now);
      }
      joiner_.EmitUntil(now);
      if (!told && streams.AllBegun()) {
        told = true;
        context_.Say("recording; Ctrl-C ends it");
      }
      dropped_ = streams.Dropped();
      progress_.Update(file_.writer().requests(), flags_.requests,
                       fmt::format("{} chunks, {} dropped", ToText(Show::kCount, file_.writer().chunks()),
                                   ToText(Show::kCount, dropped_)));
      if (!goes_on) break;
      if (now - began >= absl::ToChronoNanoseconds(duration)) break;
    }
    // What nodes have not sent yet at this moment is not recorded; what they have is.
    streams.Stop();
    while (streams.Take(requests)) {
      for (const v1::RecordedRequest& request : requests) {
        const absl::StatusOr<RecordedPiece> piece = PieceFromWire(request);
        if (piece.ok()) joiner_.Add(*piece, SteadyClock::Real().Now());
      }
      requests.clear();
    }
    joiner_.EmitAll();
    dropped_ = streams.Dropped();
    progress_.Clear();
    return failed_;
  }

  uint64_t dropped() const { return dropped_; }
  uint64_t left_out() const { return joiner_.left_out_chunks() + file_.writer().cut_chunks(); }

 private:
  bool Full() { return flags_.requests > 0 && file_.writer().requests() >= flags_.requests; }

  void Write(const JoinedRequest& request) {
    if (!failed_.ok() || Full()) return;
    if (!first_us_.has_value()) first_us_ = request.unix_us;
    // Clocks of nodes differ a little; the trace's goes forward.
    last_ms_ = std::max(last_ms_, static_cast<uint64_t>(std::max<int64_t>(0, request.unix_us - *first_us_) / 1000));
    failed_ = file_.writer().Add(
        {.milliseconds = last_ms_, .input_tokens = request.input_tokens, .output_tokens = 0, .keys = request.keys});
  }

  Context& context_;
  const RecordFlags& flags_;
  TraceFile& file_;
  TraceJoiner joiner_;
  Progress progress_;
  absl::Status failed_;
  std::optional<int64_t> first_us_;
  uint64_t last_ms_ = 0;
  uint64_t dropped_ = 0;
};

absl::StatusOr<ExitCode> Record(Context& context, const RecordFlags& flags) {
  absl::Duration duration = absl::InfiniteDuration();
  if (!flags.duration.empty()) {
    KDN_ASSIGN_OR_RETURN(duration, DurationFlag("--duration", flags.duration, /*zero_is_fine=*/false));
  }
  KDN_ASSIGN_OR_RETURN(const absl::Duration window, DurationFlag("--window", flags.window, /*zero_is_fine=*/false));
  if (!(flags.sample > 0 && flags.sample <= 1)) {
    return InvalidArgument("--sample: {} is no part of all requests; give more than 0 and at most 1", flags.sample);
  }
  v1::RecordRequestsRequest request;
  request.set_sample(flags.sample);
  if (!flags.space.empty()) {
    KDN_ASSIGN_OR_RETURN(const NamedSpace space, FindSpace(context, flags.space));
    request.set_space_id(std::string(AsStringView(space.id.span())));
  }
  std::error_code error;
  if (std::filesystem::exists(flags.file, error)) {
    KDN_RETURN_IF_ERROR(context.Confirm("replace " + flags.file));
  }
  KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenFleet());
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<TraceFile> file, TraceFile::Open(flags.file));
  const JoinerOptions joiner = {.window = absl::ToChronoMilliseconds(std::min(window, absl::Hours(1)))};
  Recording recording(context, flags, joiner, *file);
  NodeStreams streams(*fleet, request);
  KDN_RETURN_IF_ERROR(recording.Run(streams, duration));
  const std::map<size_t, absl::Status> failed = streams.Failed();
  if (failed.size() == fleet->nodes().size() && file->writer().requests() == 0) return NoneAnswered(failed);
  KDN_RETURN_IF_ERROR(file->Keep());

  const TraceWriter& writer = file->writer();
  Report report;
  report.Add("file", "Trace", Show::kText, flags.file);
  report.Add("requests", "Requests", Show::kCount, writer.requests());
  report.Add("distinct_chunks", "Distinct chunks", Show::kCount, writer.chunks());
  report.Add("dropped_requests", "Dropped by nodes", Show::kCount, recording.dropped());
  report.Add("left_out_chunks", "Chunks left out", Show::kCount, recording.left_out());
  Json not_heard = Json::array();
  for (const auto& [i, why] : failed) {
    not_heard.push_back(MessageOf(why));
    report.Note("not heard to the end: " + MessageOf(why));
  }
  report.Add("not_heard", "", Show::kText, not_heard);
  report.Note(fmt::format("`kdnctl replay {}` says what other budgets would have hit.", flags.file));
  context.Print(report);
  return failed.empty() && recording.dropped() == 0 ? ExitCode::kDone : ExitCode::kPartly;
}

}  // namespace

Runner DeclareRecord(CLI::App& app) {
  auto flags = std::make_shared<RecordFlags>();
  app.add_option("FILE", flags->file, "Where the trace goes: JSON lines as Mooncake publishes them, hashes only")
      ->required()
      ->type_name("");
  app.add_option("--duration", flags->duration, "End after so long")->type_name("DURATION");
  app.add_option("--requests", flags->requests, "End after so many requests; 0: go on")->type_name("N");
  app.add_option("--space", flags->space, "Of this space alone: its id, or its first digits")->type_name("SPACE");
  app.add_option("--sample", flags->sample, "The part of all requests that is recorded, as in 0.1")
      ->type_name("PART")
      ->capture_default_str();
  app.add_option("--window", flags->window, "How long to wait for what other nodes saw of a request")
      ->type_name("DURATION")
      ->capture_default_str();
  app.footer("Goes on until Ctrl-C unless --duration or --requests end it. Nodes record nothing while nobody listens.");
  return [flags](Context& context) { return Record(context, *flags); };
}

}  // namespace kdn::ctl
