// SlowLink: a link of so many bits a second, each way, between this process and servers that it starts at the far end.
//
//   KDN_ASSIGN_OR_RETURN(const std::unique_ptr<SlowLink> link, SlowLink::Start(LinkEmulator::kAuto, 1'000'000'000));
//   KDN_ASSIGN_OR_RETURN(const NodeProcess node, NodeProcess::Start(program, link->far_end()));
//   KDN_ASSIGN_OR_RETURN(const Endpoint address, link->Reach(node.endpoint()));
//
// Two ways to emulate it. kNamespace: the far end is a network namespace behind a veth pair whose ends are shaped by
// tc's token bucket filter; it needs root. The namespace has no name and belongs to a process that the kernel ends with
// this one, so that nothing of it stays, however the benchmark ends. kProxy: a LinkProxy, which needs no privileges,
// but takes much of a core where the link is fast.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_SLOW_LINK_H_
#define KDN_BENCH_SLOW_LINK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/server_place.h"
#include "storage/base/endpoint.h"

namespace kdn::bench {

enum class LinkEmulator { kAuto, kNamespace, kProxy };  // kAuto: kNamespace where it can be had, otherwise kProxy

class SlowLink {
 public:
  // UNAVAILABLE when kNamespace is asked for and cannot be had.
  static absl::StatusOr<std::unique_ptr<SlowLink>> Start(LinkEmulator emulator, uint64_t bits_per_second);
  virtual ~SlowLink() = default;

  // Where to start servers; they must end before the link does.
  virtual const ServerPlace& far_end() const = 0;
  // The address by which this process reaches a server that listens at `server` at the far end.
  virtual absl::StatusOr<Endpoint> Reach(const Endpoint& server) = 0;
  // How it is emulated, in words.
  virtual std::string Description() const = 0;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_SLOW_LINK_H_
