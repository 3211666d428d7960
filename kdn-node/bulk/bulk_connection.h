// BulkConnection: a node's side of one connection of the bulk protocol (proto/kdn/v1/bulk.proto).
//
// It is a state machine over a socket that does not block: Run goes on until it has to wait for the peer, or has had
// its turn, and says for what it waits. Whoever owns it runs it again when that has come. Reading from disks and
// committing uploads happen inside Run.
//
// A connection holds one batch of slabs (4 MiB, or one layer of one chunk where that is more) that its peer has not
// taken, whatever the peer does; over shared memory, what it has lent and not got back, which is at most kLendBytes and
// one batch.
//
// Thread-safety: one thread at a time, but for due and Abort.
#ifndef KDN_KDN_NODE_BULK_BULK_CONNECTION_H_
#define KDN_KDN_NODE_BULK_BULK_CONNECTION_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kdn-node/bulk/bulk_fetch.h"
#include "kdn-node/bulk/bulk_store.h"
#include "kdn-node/byte_budget.h"
#include "kdn-node/service_state.h"
#include "kdn/v1/bulk.pb.h"
#include "proto/wire/bulk_frame.h"
#include "storage/base/socket_io.h"
#include "storage/base/unique_fd.h"

namespace kdn {

// What a node tells its peers of itself.
struct BulkIdentity {
  std::string machine;       // equal for processes on one running machine
  std::string local_socket;  // in the abstract namespace; empty: no shared memory
};

class BulkConnection {
 public:
  static constexpr uint64_t kLendBytes = uint64_t{8} << 20;

  enum class Wait { kToRead, kToWrite, kForTurn, kOver };
  using Time = std::chrono::steady_clock::time_point;

  // `socket` does not block, and its preface has not been read yet. `local`: it came by the local socket, from a
  // process of this user, and may be lent shared memory. `state` and `identity` outlive this.
  BulkConnection(ServiceState& state, const BulkIdentity& identity, UniqueFd socket, bool local);
  BulkConnection(const BulkConnection&) = delete;
  BulkConnection& operator=(const BulkConnection&) = delete;

  int socket() const { return socket_.get(); }

  Wait Run();

  // The peer has to get on before this; otherwise it is to be aborted. From any thread.
  Time due() const { return Time(Time::duration(due_.load(std::memory_order_relaxed))); }
  // Run ends soon with kOver. From any thread.
  void Abort();

 private:
  // One step; kForTurn when the next may follow at once.
  Wait Step();
  Wait Send();
  Wait ReadFrame();
  Wait ReadChunk();
  Wait Drain();
  Wait OnFrame(wire::BulkType type, ByteSpan message, uint64_t data_bytes);
  Wait Greet(ByteSpan message);
  absl::Status OnCall(ByteSpan message);
  absl::Status StartFetch(const v1::FetchRequest& request, const CallOrigin& origin, Time deadline);
  absl::Status StartStore(const v1::BulkStore& request, const CallOrigin& origin);
  absl::Status OnRelease(ByteSpan message);
  void GoOnFetching();
  void Answer(v1::BulkAnswer answer, const absl::Status& status);
  // Answers with what is wrong with the peer's frames, and then closes: nothing after them can be trusted.
  Wait Refuse(const absl::Status& why);
  void Queue(const std::string& frame);
  Time DueAfter(Wait wait) const;

  ServiceState& state_;
  const BulkIdentity& identity_;
  const UniqueFd socket_;
  const bool local_;
  SocketReader reader_;
  SocketWriter writer_;
  enum class Stage { kPreface, kHello, kCalls, kRefused, kDraining } stage_ = Stage::kPreface;
  uint64_t turn_bytes_ = 0;  // sent and received in this turn
  const Time greeting_due_;
  Time draining_due_;
  std::atomic<Time::rep> due_;

  // The call that runs; at most one of the two. While a fetch runs, or something is lent, `held_` covers it.
  std::optional<BulkFetch> fetch_;
  std::optional<BulkStore> store_;
  std::optional<ActiveStreams::Entry> active_;
  ByteReservation held_;

  // Batches of shared slabs that the peer has not given back, oldest first.
  struct Lent {
    std::vector<SharedBuffer> slabs;
    uint64_t bytes = 0;
  };
  std::deque<Lent> lent_;
  uint64_t lent_bytes_ = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_BULK_BULK_CONNECTION_H_
