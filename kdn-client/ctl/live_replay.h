// LiveReplay: sends the requests of a trace to a node or cluster as engines would: for each, looks up its chunks,
// fetches what is held from the front, checks every byte, and stores the rest.
//
//   KDN_ASSIGN_OR_RETURN(const LiveReplayResult result, LiveReplay(trace, transport, options));
//
// A block of the trace is a chunk of a space made for it; its tokens and its bytes follow from the block alone, so that
// nothing but the trace is needed, and equal traces find one another's chunks.
//
// Thread-safety: a function that blocks; `on_progress` is called from one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_LIVE_REPLAY_H_
#define KDN_KDN_CLIENT_CTL_LIVE_REPLAY_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/ctl/samples.h"
#include "kdn-client/transport.h"
#include "storage/chunk.h"
#include "storage/eviction/replay/trace.h"
#include "storage/format/kv_space.h"

namespace kdn::ctl {

struct LiveReplayOptions {
  double speed = 0;                             // times that of the trace; 0: as fast as it goes
  size_t threads = 8;                           // requests at the same time
  uint64_t chunk_bytes = uint64_t{64} << 10;    // of KV for a block
  size_t max_requests = 0;                      // 0: all
  absl::Duration deadline = absl::Seconds(10);  // of each call
  std::function<void(size_t done, size_t total)> on_progress = {};
};

struct LiveReplayResult {
  SpaceId space;
  uint64_t requests = 0;
  uint64_t chunks = 0;      // that requests asked for
  uint64_t hit_chunks = 0;  // looked up, fetched and checked
  uint64_t hit_bytes = 0;   // raw
  uint64_t stored_chunks = 0;
  uint64_t stored_bytes = 0;  // raw
  uint64_t failed_stores = 0;
  uint64_t wrong_chunks = 0;  // delivered with other bytes than were stored
  std::map<TierKind, uint64_t> hits_by_tier;
  std::array<uint64_t, kMissReasonCount> misses{};  // of the first chunk of each request that was missed
  Samples lookups;
  Samples fetches;
  Samples stores;
  absl::Duration elapsed;
  absl::Duration behind;  // the most that a request began late, where a speed was asked for
};

// The space of the chunks that such a replay stores: one for each trace, by its name, as traces number their blocks
// each by itself.
absl::StatusOr<KvSpace> ReplaySpace(const replay::Trace& trace, uint64_t chunk_bytes);

absl::StatusOr<LiveReplayResult> LiveReplay(const replay::Trace& trace, std::shared_ptr<Transport> transport,
                                            const LiveReplayOptions& options);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_LIVE_REPLAY_H_
