// Frames: FetchFrame and StoreFrame as grpc::ByteBuffer, written and read without copying slab bytes.
//
// A frame is a valid protobuf message (proto/kdn/v1/node.proto) whose `data` field comes last: the writer makes one
// small slice with everything up to the bytes of `data`, and a second slice that points into the tier's buffer. The
// reader parses the small fields and hands out `data` as the spans in which it arrived.
//
// Thread-safety: pure functions; a parsed frame is for one thread.
#ifndef KDN_PROTO_WIRE_FRAMES_H_
#define KDN_PROTO_WIRE_FRAMES_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn::wire {

inline constexpr uint32_t kDefaultFrameBytes = uint32_t{1} << 20;
inline constexpr uint32_t kMinFrameBytes = uint32_t{4} << 10;
inline constexpr uint32_t kMaxFrameBytes = uint32_t{4} << 20;
// The largest message that either side accepts: a frame's payload, or a manifest, and the fields around it.
inline constexpr int kMaxMessageBytes = static_cast<int>(kMaxFrameBytes) + (64 << 10);
inline constexpr size_t kMaxKeysPerCall = 4096;
// The `result` or `begin` of a frame: a manifest (at most 1 MiB) and the fields beside it.
inline constexpr uint32_t kMaxHeaderBytes = (uint32_t{1} << 20) + (4 << 10);

// Bytes kept alive by `owner` for as long as gRPC needs them.
struct Payload {
  std::shared_ptr<const void> owner;
  std::span<const uint8_t> bytes;
};

// A slab part of a Fetch or Store stream. `chunk` is not written by Store frames.
struct DataFrame {
  uint32_t chunk = 0;
  uint32_t slab = 0;
  uint64_t offset = 0;
};

grpc::ByteBuffer EncodeFetchData(const DataFrame& frame, Payload payload);
// A frame of a fetch with `join_frames`: a chunk's result (the bytes of a ChunkResult), data that begin at `frame` and
// may be of several slabs, or both.
grpc::ByteBuffer EncodeFetchFrame(const DataFrame& frame, std::optional<std::string_view> result,
                                  std::span<Payload> data);
grpc::ByteBuffer EncodeStoreData(const DataFrame& frame, Payload payload);

// The small fields of a received frame, and its data. Move-only: `data` points into what this frame alone owns.
struct ParsedFrame {
  ParsedFrame() = default;
  ParsedFrame(ParsedFrame&&) = default;
  ParsedFrame& operator=(ParsedFrame&&) = default;

  DataFrame where;
  bool has_header = false;                     // `result` of a FetchFrame, `begin` of a StoreFrame
  std::string header;                          // that submessage's bytes
  std::vector<std::span<const uint8_t>> data;  // in order; valid as long as this ParsedFrame
  uint64_t data_bytes = 0;

 private:
  friend absl::StatusOr<ParsedFrame> ParseFrame(const grpc::ByteBuffer& message);
  std::vector<grpc::Slice> slices_;  // keep `data` alive
};

// Both frame types share field numbers, so one parser serves both. Unknown fields are skipped, as protobuf does.
// INVALID_ARGUMENT on malformed bytes, data over kMaxFrameBytes, or a header over kMaxHeaderBytes.
absl::StatusOr<ParsedFrame> ParseFrame(const grpc::ByteBuffer& message);

// Whole messages, for the frames that carry no data and for the unary sides of raw methods.
grpc::ByteBuffer EncodeMessage(const google::protobuf::MessageLite& message);
// INVALID_ARGUMENT naming the type when the bytes are not such a message.
absl::Status DecodeMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message);

}  // namespace kdn::wire

#endif  // KDN_PROTO_WIRE_FRAMES_H_
