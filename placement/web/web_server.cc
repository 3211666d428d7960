#include "placement/web/web_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "placement/web/analytics_json.h"
#include "placement/web/page_assets.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/format/digest.h"

namespace kdn {
namespace {

constexpr std::chrono::seconds kSocketTimeout{5};  // of one read or write
constexpr size_t kMostBodyBytes = 1024;            // of a request, which needs none
constexpr const char* kJsonType = "application/json";
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Answer {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body = {};
  std::string etag = {};  // of what may be kept and asked about again
};

Answer JsonError(int status, const std::string& message) {
  return {.status = status, .type = kJsonType, .body = ErrorJson(message), .etag = {}};
}

std::string TypeOf(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "application/octet-stream";
}

// Threads for connections. Where httplib's own lets any number wait, this one has the listener wait.
class BoundedQueue final : public httplib::TaskQueue {
 public:
  BoundedQueue(size_t threads, size_t most) : most_(most) {
    for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }

  void enqueue(std::function<void()> task) override {
    MutexLock lock(mu_);
    while (tasks_.size() >= most_ && !stopping_) changed_.Wait(mu_);
    tasks_.push_back(std::move(task));
    changed_.NotifyAll();
  }
  void shutdown() override {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    changed_.NotifyAll();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void Run() {
    while (true) {
      std::function<void()> task;
      {
        MutexLock lock(mu_);
        while (tasks_.empty() && !stopping_) changed_.Wait(mu_);
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      changed_.NotifyAll();
      task();
    }
  }

  const size_t most_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

absl::StatusOr<uint64_t> NumberParameter(const httplib::Request& request, const char* name, uint64_t otherwise) {
  if (!request.has_param(name)) return otherwise;
  const std::string text = request.get_param_value(name);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument("{}: '{}' is not a whole number", name, text);
  }
  return value;
}

absl::StatusOr<History::Question> HistoryQuestion(const httplib::Request& request) {
  History::Question question;
  KDN_ASSIGN_OR_RETURN(const uint64_t range, NumberParameter(request, "range", 3600));
  if (range > static_cast<uint64_t>(absl::ToInt64Seconds(History::Longest()))) {
    return InvalidArgument("range: {} s is too long; give 1 to {}", range, absl::ToInt64Seconds(History::Longest()));
  }
  question.range = absl::Seconds(static_cast<int64_t>(range));
  KDN_ASSIGN_OR_RETURN(question.max_points, NumberParameter(request, "points", question.max_points));
  if (!request.has_param("space")) return question;
  const std::string space = request.get_param_value("space");
  if (space == "other") {
    question.space = SpaceId();
  } else {
    const absl::StatusOr<SpaceId> id = SpaceId::FromHex(space);
    if (!id.ok()) return Annotate(id.status(), "space");
    question.space = *id;
  }
  return question;
}

class WebServerImpl final : public WebServer {
 public:
  WebServerImpl(const Options& options, Collector& collector, LoadLookup loads)
      : options_(options), collector_(collector), loads_(std::move(loads)) {
    for (const PageAsset& asset : PageAssets()) {
      const std::array<uint8_t, kDigestSize> digest = Sha256({AsBytes(asset.content)});
      SpaceId name;
      name.bytes = digest;
      etags_.push_back("\"" + name.ToShortHex() + "\"");
    }
  }

  ~WebServerImpl() override { Stop(); }

  absl::Status Listen() {
    server_.new_task_queue = [this] { return new BoundedQueue(options_.threads, options_.max_waiting); };
    // Two daemons on one port would each get half of the connections.
    server_.set_socket_options([](int socket) {
      const int yes = 1;
      (void)setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server_.set_read_timeout(kSocketTimeout);
    server_.set_write_timeout(kSocketTimeout);
    // A connection that waits for its next request would keep a thread from others.
    server_.set_keep_alive_max_count(1);
    server_.set_payload_max_length(kMostBodyBytes);
    server_.set_tcp_nodelay(true);
    // Before httplib's own routes, which match by regular expressions.
    server_.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      Send(AnswerTo(request), request, response);
      return httplib::Server::HandlerResponse::Handled;
    });
    server_.set_error_handler([](const httplib::Request&, httplib::Response& response) { AddHeaders(response); });

    const std::string& host = options_.listen.host;
    int port = options_.listen.port;
    if (port == 0) {
      port = server_.bind_to_any_port(host);
    } else if (!server_.bind_to_port(host, port)) {
      port = -1;
    }
    if (port <= 0) {
      return Unavailable("cannot serve the web page on {}: the port is in use, or the address is not of this machine",
                         options_.listen.ToString());
    }
    endpoint_ = {.host = host, .port = static_cast<uint16_t>(port)};
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // or Stop would not stop
    return absl::OkStatus();
  }

  const Endpoint& endpoint() const override { return endpoint_; }

  void Stop() override {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
  }

 private:
  static void AddHeaders(httplib::Response& response) {
    response.set_header("Content-Security-Policy", kPolicy);
    response.set_header("X-Content-Type-Options", "nosniff");
    response.set_header("Referrer-Policy", "no-referrer");
    response.set_header("Cross-Origin-Resource-Policy", "same-origin");
    response.set_header("Cross-Origin-Opener-Policy", "same-origin");
  }

  static void Send(Answer answer, const httplib::Request& request, httplib::Response& response) {
    AddHeaders(response);
    if (answer.status == 405) response.set_header("Allow", "GET, HEAD");
    response.set_header("Cache-Control", answer.etag.empty() ? "no-store" : "no-cache");
    if (!answer.etag.empty()) response.set_header("ETag", answer.etag);
    if (!answer.etag.empty() && request.get_header_value("If-None-Match") == answer.etag) {
      response.status = 304;
      return;
    }
    response.status = answer.status;
    if (answer.body.empty()) return;
    // By a provider, as httplib would compress a plain body with a care that takes longer than sending it.
    const auto body = std::make_shared<const std::string>(std::move(answer.body));
    response.set_content_provider(body->size(), answer.type, [body](size_t at, size_t length, httplib::DataSink& sink) {
      return sink.write(body->data() + at, std::min(length, body->size() - at));
    });
  }

  // The names that a browser on this machine knows it by; others may be anybody's who lets them point here.
  bool IsOurName(const httplib::Request& request) const {
    if (!options_.listen.IsLoopback()) return true;
    const std::string host = request.get_header_value("Host");
    const absl::StatusOr<Endpoint> named = ParseEndpoint(host);
    if (named.ok()) return named->IsLoopback();
    const absl::StatusOr<Endpoint> without_port = ParseEndpoint(host + ":80");
    return without_port.ok() && without_port->IsLoopback();
  }

  Answer AnswerTo(const httplib::Request& request) const {
    if (request.method != "GET" && request.method != "HEAD") {
      return {.status = 405, .body = "405: nothing can be changed here; use kdnctl\n", .etag = {}};
    }
    if (!request.ranges.empty()) return {.status = 416, .etag = {}};
    if (!IsOurName(request)) {
      return {.status = 421,
              .body =
                  "421: this daemon listens on loopback and answers to localhost alone; open "
                  "http://localhost or give --web-listen an address\n",
              .etag = {}};
    }
    if (request.path == "/api/v1/overview") return Overview(request);
    if (request.path == "/api/v1/history") return HistoryOf(request);
    if (request.path.starts_with("/api/")) return JsonError(404, "there is no such document; see docs/operations.md");
    const std::string_view name =
        request.path == "/" ? std::string_view("index.html") : std::string_view(request.path).substr(1);
    const std::vector<PageAsset>& assets = PageAssets();
    for (size_t i = 0; i < assets.size(); ++i) {
      if (assets[i].name == name) {
        return {.type = TypeOf(name), .body = std::string(assets[i].content), .etag = etags_[i]};
      }
    }
    return {.status = 404, .body = "404: there is no such page; the one that there is is at /\n", .etag = {}};
  }

  Answer Overview(const httplib::Request& request) const {
    const ClusterReportPtr report = collector_.Latest();
    if (report == nullptr) return JsonError(503, "the nodes have not been asked yet; try again in a few seconds");
    return {.type = kJsonType,
            .body = OverviewJson(*report, loads_, options_.interval, collector_.history().Spaces(),
                                 request.get_param_value("model"), request.get_param_value("tenant")),
            .etag = {}};
  }

  Answer HistoryOf(const httplib::Request& request) const {
    absl::StatusOr<History::Question> question = HistoryQuestion(request);
    if (!question.ok()) return JsonError(400, MessageOf(question.status()));
    const absl::StatusOr<HistoryRange> range = collector_.history().Read(*question);
    if (absl::IsInvalidArgument(range.status())) return JsonError(400, MessageOf(range.status()));
    if (absl::IsNotFound(range.status())) return JsonError(404, MessageOf(range.status()));
    if (!range.ok()) return JsonError(503, MessageOf(range.status()));
    return {.type = kJsonType, .body = HistoryJson(*range), .etag = {}};
  }

  const Options options_;
  Collector& collector_;
  const LoadLookup loads_;
  std::vector<std::string> etags_;  // of PageAssets
  httplib::Server server_;
  std::thread thread_;
  Endpoint endpoint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WebServer>> WebServer::Start(const Options& options, Collector& collector,
                                                            LoadLookup loads) {
  auto server = std::make_unique<WebServerImpl>(options, collector, std::move(loads));
  KDN_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace kdn
