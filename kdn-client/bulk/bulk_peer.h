// BulkPeer: a node as the bulk protocol reaches it: its connections, each for one call at a time and kept for the next,
// and its shared memory, where node and client share a machine and a user.
//
//   KDN_ASSIGN_OR_RETURN(BulkPeer::Loan loan, peer.Take(deadline));
//   …one call over *loan.socket…
//   peer.GiveBack(std::move(loan));   // if the call went to its end
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_BULK_BULK_PEER_H_
#define KDN_KDN_CLIENT_BULK_BULK_PEER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/bulk/bulk_socket.h"
#include "kdn-client/bulk/node_address.h"
#include "kdn-client/bulk/shared_memory.h"
#include "kdn-client/cancellation.h"
#include "storage/base/mutex.h"

namespace kdn {

class BulkPeer {
 public:
  struct Options {
    bool shared_memory = true;
  };

  // A connection that has been greeted.
  struct Loan {
    std::unique_ptr<BulkSocket> socket;
    std::shared_ptr<const SharedMemory> memory;  // null: all slabs come by the socket
    bool used_before = false;
  };

  BulkPeer(const std::string& target, const Options& options) : options_(options), address_(target) {}

  // False while the node is known not to speak the bulk protocol; it is asked again after a minute, or after a second
  // if it closed the connection without a word.
  bool MaySpeak() const;

  // UNIMPLEMENTED: it does not speak the bulk protocol. UNAVAILABLE: it is away; while the network does not even say
  // so, calls fail at once for up to half a second. CANCELLED: by `cancel`. `fresh`: a connection that nobody has used.
  absl::StatusOr<Loan> Take(absl::Time deadline, Cancellation* cancel = nullptr, bool fresh = false);
  void GiveBack(Loan loan);

 private:
  struct Greeting;

  absl::StatusOr<Loan> ConnectLocally(const std::string& name, absl::Time deadline, Cancellation* cancel);
  absl::StatusOr<std::unique_ptr<BulkSocket>> ConnectRemotely(absl::Time deadline);
  static absl::StatusOr<Greeting> Greet(BulkSocket& socket, absl::Time deadline, Cancellation* cancel);

  const Options options_;
  NodeAddress address_;

  mutable Mutex mu_;
  std::vector<Loan> idle_ ABSL_GUARDED_BY(mu_);                          // the last used last
  absl::Time silent_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // it does not speak the protocol
  absl::Time away_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();    // nothing answers
  absl::Duration next_pause_ ABSL_GUARDED_BY(mu_) = absl::Milliseconds(100);
  // The node's local socket, once known to be this machine's, and what is mapped of it.
  std::string local_name_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const SharedMemory> memory_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BULK_BULK_PEER_H_
