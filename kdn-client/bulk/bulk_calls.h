// BulkCalls: lookups, fetches and stores over the bulk protocol.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_KDN_CLIENT_BULK_BULK_CALLS_H_
#define KDN_KDN_CLIENT_BULK_BULK_CALLS_H_

#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/bulk/bulk_peer.h"
#include "kdn-client/cancellation.h"
#include "kdn-client/fetch_receiver.h"
#include "kdn/v1/bulk.pb.h"
#include "storage/chunk.h"

namespace kdn {

// A chunk to be stored, with its StoreBegin.
struct BulkChunk {
  v1::StoreBegin begin;
  const Chunk* chunk = nullptr;
};

class BulkCalls {
 public:
  BulkCalls(const std::string& target, const BulkPeer::Options& options) : peer_(target, options) {}

  // False while the node is known not to speak the bulk protocol. A call may find out first: UNIMPLEMENTED.
  bool MaySpeak() const { return peer_.MaySpeak(); }

  // The statuses are those that NodeService gives, besides UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, and DATA_LOSS
  // when the node breaks the protocol.
  absl::StatusOr<v1::LookupResponse> Lookup(v1::LookupRequest request, absl::Time deadline);
  absl::Status Fetch(v1::FetchRequest request, absl::Time deadline, Cancellation* cancel, FetchReceiver& receiver);
  absl::StatusOr<v1::StoreResponse> Store(std::span<const BulkChunk> chunks, absl::Time deadline);

 private:
  // Makes a call that may be made twice: once more over a new connection if one that was kept turns out to be lost
  // before anything came.
  absl::Status Call(absl::Time deadline, Cancellation* cancel,
                    const std::function<absl::Status(BulkPeer::Loan&)>& call);

  BulkPeer peer_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BULK_BULK_CALLS_H_
