// Frames of the bulk protocol (proto/kdn/v1/bulk.proto): a header of 16 bytes, a protobuf message, and data.
//
//   | type, 1 byte | 0, 3 bytes | size of the message, 4 bytes | size of the data, 8 bytes | message | data |
//
// Numbers are little-endian. A client opens its connection with kBulkPreface, which no HTTP/2 client sends.
//
// Thread-safety: pure functions.
#ifndef KDN_PROTO_WIRE_BULK_FRAME_H_
#define KDN_PROTO_WIRE_BULK_FRAME_H_

#include <google/protobuf/message_lite.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn::wire {

inline constexpr std::string_view kBulkPreface = "KDNBULK1";
inline constexpr uint32_t kBulkVersion = 1;

enum class BulkType : uint8_t {
  kHello = 1,    // BulkHello, client to node
  kWelcome = 2,  // BulkWelcome
  kCall = 3,     // BulkCall, client to node
  kChunk = 4,    // StoreBegin, and all slabs of the chunk as data, client to node
  kRelease = 5,  // BulkRelease, client to node
  kSlabs = 6,    // BulkSlabs
  kAnswer = 7,   // BulkAnswer
};

struct BulkHeader {
  BulkType type = BulkType::kHello;
  uint32_t message_bytes = 0;
  uint64_t data_bytes = 0;
};

inline constexpr size_t kBulkHeaderBytes = 16;
inline constexpr uint32_t kMaxBulkMessageBytes = uint32_t{8} << 20;

// INVALID_ARGUMENT: an unknown type, or a message over kMaxBulkMessageBytes.
absl::StatusOr<BulkHeader> ParseBulkHeader(std::span<const uint8_t, kBulkHeaderBytes> bytes);
std::array<uint8_t, kBulkHeaderBytes> EncodeBulkHeader(const BulkHeader& header);

// A frame without its data, `data_bytes` of which are to follow.
std::string EncodeBulkFrame(BulkType type, const google::protobuf::MessageLite& message, uint64_t data_bytes = 0);

}  // namespace kdn::wire

#endif  // KDN_PROTO_WIRE_BULK_FRAME_H_
