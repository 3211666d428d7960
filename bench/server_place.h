// ServerPlace: where a benchmark runs a server of its own: on loopback, or at the far end of a SlowLink.
//
// Thread-safety: values.
#ifndef KDN_BENCH_SERVER_PLACE_H_
#define KDN_BENCH_SERVER_PLACE_H_

#include <string>
#include <vector>

namespace kdn::bench {

struct ServerPlace {
  std::vector<std::string> prefix = {};  // goes before the server's own command line
  std::string host = "127.0.0.1";        // to listen on

  std::vector<std::string> CommandLine(const std::vector<std::string>& server) const {
    std::vector<std::string> all = prefix;
    all.insert(all.end(), server.begin(), server.end());
    return all;
  }
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_SERVER_PLACE_H_
