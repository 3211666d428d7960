// RequestRecord: what the request log tells of one call of a node, filled in as the call goes on. Where no request log
// is kept there is none, and a call costs one branch.
//
//   RequestRecord record(Origin{.context = &context});
//   record.Begun(now); record.About(keys); record.Sent(bytes, now); …
//   record.Write(log, "fetch", status, started, now);
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_NODE_REQUEST_RECORD_H_
#define KDN_KDN_NODE_REQUEST_RECORD_H_

#include <grpcpp/server_context.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kdn-node/wire_convert.h"
#include "storage/base/request_log.h"
#include "storage/chunk.h"
#include "storage/tiered_store.h"

namespace kdn {

class FetchReader;

// How a call came; what it refers to is looked at while the call begins, and only for the request log.
struct CallOrigin {
  const grpc::ServerContextBase* context = nullptr;  // of a call by gRPC
  // Otherwise of one by the bulk protocol.
  std::string_view traceparent = {};
  int socket = -1;
  bool local = false;  // by shared memory
};

// The trace that the call names; zero: none.
TraceId TraceOf(const CallOrigin& origin);

class RequestRecord {
 public:
  explicit RequestRecord(const CallOrigin& origin);

  // A thread has begun to work for the call. Only the first time counts.
  void Begun(absl::Time now) {
    if (begun_ == absl::InfinitePast()) begun_ = now;
  }
  // The space and the chunks that the call names.
  void About(const KeySet& what) { About(what.space, what.keys.size()); }
  void About(const std::optional<SpaceId>& space, size_t chunks);
  // Slab bytes are about to be sent.
  void Sent(uint64_t bytes, absl::Time now) {
    bytes_ += bytes;
    if (first_byte_ == absl::InfinitePast()) first_byte_ = now;
  }
  void Received(uint64_t bytes) { bytes_ += bytes; }
  // What a lookup found.
  void Found(std::span<const FoundChunk> chunks);
  // What a fetch came to; chunks that it did not come to are missed by `unfinished`.
  void Fetched(const FetchReader& reader, MissReason unfinished);
  // One chunk of a store, or of a delete.
  void Done(const absl::Status& chunk);

  // Writes the call as ended so, if the log wants it.
  void Write(const RequestLog& log, std::string_view method, const absl::Status& status, absl::Time started,
             absl::Time now) const;

 private:
  void Count(MissReason miss, TierKind tier);
  bool Failed(const absl::Status& status) const;

  RequestSpan span_;
  std::string peer_;
  std::string_view protocol_;
  std::optional<SpaceId> space_;
  uint64_t chunks_ = 0;
  std::array<uint64_t, 5> found_{};                  // by TierKind
  std::array<uint64_t, kMissReasonCount> missed_{};  // by MissReason; [0] is not used
  uint64_t done_ = 0;
  absl::Status not_done_;  // of the first chunk that was not
  uint64_t bytes_ = 0;
  absl::Time begun_ = absl::InfinitePast();
  absl::Time first_byte_ = absl::InfinitePast();
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_REQUEST_RECORD_H_
