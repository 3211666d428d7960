// TraceJoiner: requests as nodes of a cluster saw them, put together again. A node sees the chunks of a prompt that it
// was asked for; what has one trace id, of one space and within a short time, is one request.
//
//   TraceJoiner joiner({}, [&](const JoinedRequest& request) { … });
//   joiner.Add(*PieceFromWire(recorded), SteadyClock::Real().Now());
//   joiner.EmitUntil(SteadyClock::Real().Now());       // now and then
//   joiner.EmitAll();                                  // at the end
//
// Chunks behind one that nobody was asked for are left out and counted: their prompt is not known. A piece that
// contradicts what is known of its request (another chunk at the same place) begins another request. Pieces without a
// trace id stay alone.
//
// Requests are emitted in the order of their times, as far as they come within the window, by the nodes' clocks.
//
// Memory: what comes within the window, at most `most_chunks`; beyond that the oldest are emitted early.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_TRACE_JOINER_H_
#define KDN_KDN_CLIENT_CTL_TRACE_JOINER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kdn/v1/analytics.pb.h"
#include "storage/base/steady_clock.h"
#include "storage/base/trace_context.h"
#include "storage/format/digest.h"

namespace kdn::ctl {

struct RecordedPiece {
  int64_t unix_us = 0;
  SpaceId space;
  TraceId trace = {};
  std::vector<ChunkKey> keys = {};
  std::vector<uint32_t> positions = {};  // of each key; kNoPosition where nobody knows
  uint32_t prefix_tokens = 0;            // up to the end of the last chunk for which it is known …
  uint32_t prefix_chunks = 0;            // … which is this one, counted from 1; 0: none
  uint32_t chunk_tokens = 0;             // 0: not known

  static constexpr uint32_t kNoPosition = UINT32_MAX;
};

// DATA_LOSS naming what makes no sense.
absl::StatusOr<RecordedPiece> PieceFromWire(const v1::RecordedRequest& request);

struct JoinedRequest {
  int64_t unix_us = 0;
  std::vector<ChunkKey> keys = {};  // of the prompt, from its first chunk
  uint32_t input_tokens = 0;        // about, where the last chunk is not held
};

struct JoinerOptions {
  std::chrono::milliseconds window{2000};
  size_t most_chunks = size_t{1} << 22;
};

class TraceJoiner {
 public:
  using OnRequest = std::function<void(const JoinedRequest&)>;
  TraceJoiner(const JoinerOptions& options, OnRequest on_request)
      : options_(options), on_request_(std::move(on_request)) {}

  void Add(const RecordedPiece& piece, SteadyClock::Point now);
  // Emits what came longer ago than the window.
  void EmitUntil(SteadyClock::Point now);
  void EmitAll();

  uint64_t left_out_chunks() const { return left_out_; }

 private:
  struct Pending {
    SteadyClock::Point came;
    int64_t unix_us = 0;
    std::pair<SpaceId, TraceId> of;
    std::map<uint32_t, ChunkKey> chunks = {};  // by position
    uint64_t lost = 0;                         // chunks without a position
    uint32_t prefix_tokens = 0;
    uint32_t prefix_chunks = 0;
  };

  bool Fits(const Pending& pending, const RecordedPiece& piece) const;
  void Emit(Pending& pending);
  void EmitOldest(size_t count);

  const JoinerOptions options_;
  const OnRequest on_request_;
  std::list<Pending> pending_;                                                  // as they came
  std::map<std::pair<SpaceId, TraceId>, std::list<Pending>::iterator> latest_;  // those with a trace
  std::map<SpaceId, uint32_t> chunk_tokens_;
  size_t pending_chunks_ = 0;
  uint64_t left_out_ = 0;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_TRACE_JOINER_H_
