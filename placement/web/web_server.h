// WebServer: serves the web page and what it draws, over HTTP.
//
//   absl::StatusOr<std::unique_ptr<WebServer>> web = WebServer::Start({.listen = {"127.0.0.1", 7413}}, collector,
//   loads); Log("http://" + (*web)->endpoint().ToString());
//
//   GET /                  the page
//   GET /api/v1/overview   ?model=NAME&tenant=NAME; what is now; 503 before the nodes were asked
//   GET /api/v1/history    ?range=SECONDS&points=N&space=HEX|other; what was
//
// Nothing can be changed here, and no other site's script can read it: there is no CORS, and a daemon that listens on
// loopback answers to loopback's names alone, so that no foreign name can be pointed at it. There is no login: whoever
// reaches the port may look.
//
// Thread-safety: Stop once; the rest from any thread.
#ifndef KDN_PLACEMENT_WEB_WEB_SERVER_H_
#define KDN_PLACEMENT_WEB_WEB_SERVER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/analytics/collector.h"
#include "placement/analytics/placement_analytics_service.h"
#include "storage/base/endpoint.h"

namespace kdn {

class WebServer {
 public:
  struct Options {
    Endpoint listen = {.host = "127.0.0.1", .port = 7413};
    absl::Duration interval = absl::Seconds(5);  // how often the nodes are asked; the page asks as often
    size_t threads = 4;
    size_t max_waiting = 64;  // connections that wait for a thread; more wait for the system to let them in
  };

  // Serves once it returns. `collector` outlives it. UNAVAILABLE naming the address.
  static absl::StatusOr<std::unique_ptr<WebServer>> Start(const Options& options, Collector& collector,
                                                          LoadLookup loads);
  virtual ~WebServer() = default;  // stops it

  virtual const Endpoint& endpoint() const = 0;  // with the port that the system chose
  virtual void Stop() = 0;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_WEB_WEB_SERVER_H_
