// FetchReceiver: turns what a node sends for a fetch into calls to a sink, and holds the node to the protocol. Frames
// of gRPC come by OnFrame; what comes by the bulk protocol, by the functions below it.
//
// Thread-safety: one thread.
#ifndef KDN_KDN_CLIENT_FETCH_RECEIVER_H_
#define KDN_KDN_CLIENT_FETCH_RECEIVER_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kdn-client/transport.h"
#include "proto/wire/frames.h"

namespace kdn {

namespace v1 {
class ChunkResult;
}

class FetchReceiver {
 public:
  // For a call, with `join_frames`, about `layers` of `keys` keys, the first of which is the sink's chunk number
  // `first_chunk`.
  FetchReceiver(size_t first_chunk, size_t keys, LayerRange layers, SlabSink& sink)
      : first_chunk_(first_chunk), layers_(layers), answers_(keys), sink_(sink) {}

  // DATA_LOSS when the frame breaks the protocol: nothing after it can be trusted.
  absl::Status OnFrame(const grpc::ByteBuffer& message);

  // DATA_LOSS as OnFrame.
  absl::Status OnResult(size_t key, const v1::ChunkResult& result);
  // That the next slab of `key` to be sent may be this one, of so many bytes. DATA_LOSS otherwise.
  absl::Status BeginSlab(size_t key, uint32_t slab, uint64_t bytes);
  // As SlabSink::Room, for a slab that has begun.
  MutableByteSpan Room(size_t key, uint32_t slab);
  // Parts of slabs that have begun.
  void OnPart(size_t key, uint32_t slab, uint64_t offset, ByteSpan part);

  // Once the stream is over: what was never answered, or all of it after a breach, is a miss by kProtocol.
  void Close(const absl::Status& breach);

 private:
  enum class State : uint8_t { kNone, kComing, kSkipped, kMissed };
  struct Answer {
    State state = State::kNone;
    ManifestPtr manifest = nullptr;  // while kComing
    uint32_t next_slab = 0;          // that may begin
  };

  void OnResultBytes(size_t key, const std::string& bytes);
  void OnChunkResult(size_t key, const v1::ChunkResult& result);
  uint32_t NextWanted(const Manifest& manifest, uint32_t slab) const;
  absl::Status OnData(size_t key, const wire::ParsedFrame& frame);

  const size_t first_chunk_;
  const LayerRange layers_;
  std::vector<Answer> answers_;
  SlabSink& sink_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_FETCH_RECEIVER_H_
