// BulkFetch: a fetch that comes by the bulk protocol, batch by batch.
//
//   while (!fetch.done()) { BulkBatch batch = fetch.Next(); Send(batch.frame); Send(batch.data); }
//   Send(fetch.End(status));
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_BULK_BULK_FETCH_H_
#define KDN_KDN_NODE_BULK_BULK_FETCH_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kdn-node/byte_budget.h"
#include "kdn-node/call_record.h"
#include "kdn-node/fetch_reader.h"
#include "kdn-node/service_state.h"
#include "kdn-node/wire_convert.h"
#include "kdn/v1/bulk.pb.h"
#include "storage/base/buffer.h"

namespace kdn {

struct BulkBatch {
  std::string frame;               // header and BulkSlabs
  std::vector<SharedBuffer> data;  // that go behind it
  std::vector<SharedBuffer> lent;  // that the peer finds in shared memory
  uint64_t lent_bytes = 0;
};

class BulkFetch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Lends what lies in the store's arena if `lend`, which needs one.
  BulkFetch(ServiceState& state, const CallOrigin& origin, FetchCall call, Time deadline, bool lend);
  // A fetch that did not End was cut short by its peer.
  ~BulkFetch();
  BulkFetch(const BulkFetch&) = delete;
  BulkFetch& operator=(const BulkFetch&) = delete;

  bool done() const { return reader_->done(); }
  Time deadline() const { return deadline_; }

  // Reads on, a few MiB, or one layer of one chunk where that is more. May wait for disks.
  BulkBatch Next();

  // Counts the fetch as ended so.
  void End(const absl::Status& status);

 private:
  // How many bytes of a chunk that is to be recoded may be held; few while others hold the budget.
  uint64_t RecodableBytes();
  void AddItem(FetchItem item, v1::BulkSlabs& slabs, BulkBatch& batch, uint64_t& inline_bytes) const;

  ServiceState& state_;
  const CallRecord record_;
  const uint64_t chunks_;
  const Time deadline_;
  const bool lend_;
  const std::unique_ptr<FetchReader> reader_;
  ByteReservation recoding_;  // what a batch that is recoded holds beyond the others
  bool ended_ = false;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_BULK_BULK_FETCH_H_
