#include "proto/wire/bulk_frame.h"

#include <fmt/core.h>

namespace kdn::wire {
namespace {

template <typename T>
T LoadLittleEndian(const uint8_t* bytes) {
  T value = 0;
  for (size_t i = sizeof(T); i-- > 0;) value = static_cast<T>(value << 8) | bytes[i];
  return value;
}

template <typename T>
void StoreLittleEndian(T value, uint8_t* bytes) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace

absl::StatusOr<BulkHeader> ParseBulkHeader(std::span<const uint8_t, kBulkHeaderBytes> bytes) {
  const BulkHeader header = {.type = static_cast<BulkType>(bytes[0]),
                             .message_bytes = LoadLittleEndian<uint32_t>(&bytes[4]),
                             .data_bytes = LoadLittleEndian<uint64_t>(&bytes[8])};
  if (header.type < BulkType::kHello || header.type > BulkType::kAnswer) {
    return absl::InvalidArgumentError(fmt::format("a bulk frame has the unknown type {}", bytes[0]));
  }
  if (header.message_bytes > kMaxBulkMessageBytes) {
    return absl::InvalidArgumentError(fmt::format("a bulk frame's message has {} bytes; at most {} are allowed",
                                                  header.message_bytes, kMaxBulkMessageBytes));
  }
  return header;
}

std::array<uint8_t, kBulkHeaderBytes> EncodeBulkHeader(const BulkHeader& header) {
  std::array<uint8_t, kBulkHeaderBytes> bytes{};
  bytes[0] = static_cast<uint8_t>(header.type);
  StoreLittleEndian(header.message_bytes, &bytes[4]);
  StoreLittleEndian(header.data_bytes, &bytes[8]);
  return bytes;
}

std::string EncodeBulkFrame(BulkType type, const google::protobuf::MessageLite& message, uint64_t data_bytes) {
  const size_t size = message.ByteSizeLong();
  const auto header =
      EncodeBulkHeader({.type = type, .message_bytes = static_cast<uint32_t>(size), .data_bytes = data_bytes});
  std::string frame;
  frame.reserve(kBulkHeaderBytes + size);
  frame.append(header.begin(), header.end());
  message.AppendToString(&frame);
  return frame;
}

}  // namespace kdn::wire
