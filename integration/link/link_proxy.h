// LinkProxy: a slow, far or broken link between a client and a server of this machine, as a TCP proxy of our own. It
// needs no privileges, and nobody else's traffic is touched.
//
//   KDN_ASSIGN_OR_RETURN(std::unique_ptr<LinkProxy> link,
//                        LinkProxy::Start(node, {.down_bits_per_second = 1'000'000'000,
//                                                .latency = absl::Milliseconds(5)}));
//   ConnectTo(link->endpoint());
//   link->Stall();
//
// link_options.h says what is emulated and what is not. One thread moves the bytes. A reset by one peer, and one made
// by Cut, reaches the other at once, and what was on the link then is lost. A client for whom the upstream cannot be
// reached is reset.
//
// Thread-safety: any number of threads. Every call is in force when it returns.
#ifndef KDN_INTEGRATION_LINK_LINK_PROXY_H_
#define KDN_INTEGRATION_LINK_LINK_PROXY_H_

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "integration/link/link_loop.h"
#include "integration/link/link_options.h"
#include "storage/base/endpoint.h"
#include "storage/base/mutex.h"

namespace kdn {

class LinkProxy {
 public:
  // Serves on a port of 127.0.0.1 that the system chooses. INVALID_ARGUMENT naming the bad option, NOT_FOUND when the
  // upstream's host has no address, UNAVAILABLE. It is no error that nobody listens at the upstream yet.
  static absl::StatusOr<std::unique_ptr<LinkProxy>> Start(const Endpoint& upstream, const LinkOptions& options);
  LinkProxy(const LinkProxy&) = delete;
  LinkProxy& operator=(const LinkProxy&) = delete;
  // Resets what is open.
  ~LinkProxy();

  // Where clients connect to.
  const Endpoint& endpoint() const { return loop_->endpoint(); }

  // For what enters the link from now on. INVALID_ARGUMENT, and nothing has changed.
  absl::Status SetOptions(const LinkOptions& options) ABSL_LOCKS_EXCLUDED(mu_);
  // Resets all connections and refuses new ones, for good.
  void Cut() ABSL_LOCKS_EXCLUDED(mu_);
  // Nothing moves either way, not even a reset or a new connection, until Resume. Then what was on the link arrives
  // when it was due, and what waited for the link enters it.
  void Stall() ABSL_LOCKS_EXCLUDED(mu_);
  void Resume() ABSL_LOCKS_EXCLUDED(mu_);
  LinkStats Stats() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  explicit LinkProxy(std::unique_ptr<LinkLoop> loop) : loop_(std::move(loop)), thread_([this] { Run(); }) {}

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Has the loop's thread call `task`, and waits until it has.
  void Do(const std::function<void()>& task) ABSL_LOCKS_EXCLUDED(mu_);

  const std::unique_ptr<LinkLoop> loop_;  // the thread's, but for Wake and endpoint
  Mutex mu_;
  CondVar done_;
  std::vector<const std::function<void()>*> tasks_ ABSL_GUARDED_BY(mu_);
  uint64_t added_ ABSL_GUARDED_BY(mu_) = 0;     // tasks, ever
  uint64_t finished_ ABSL_GUARDED_BY(mu_) = 0;  // of them
  bool stopping_ = false;                       // the thread's
  std::thread thread_;
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_LINK_PROXY_H_
