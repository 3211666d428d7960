#include "proto/wire/frames.h"

#include <fmt/core.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <utility>

namespace kdn::wire {
namespace {

using google::protobuf::io::CodedOutputStream;

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kGroupStart = 3, kGroupEnd = 4, kFixed32 = 5 };

// Field numbers that FetchFrame and StoreFrame share.
enum Field : uint32_t { kChunk = 1, kHeader = 2, kSlab = 3, kOffset = 4, kData = 15 };

constexpr uint32_t Tag(Field field, WireType type) { return field << 3 | type; }

// As deep as protobuf's own parsers follow groups.
constexpr size_t kMaxGroupDepth = 100;

// A slice that points at the payload and keeps its owner alive.
grpc::Slice SliceOf(Payload payload) {
  using Owner = std::shared_ptr<const void>;
  auto* owner = new Owner(std::move(payload.owner));
  // gRPC takes a mutable pointer, and does not write through it.
  void* bytes = const_cast<uint8_t*>(payload.bytes.data());
  return grpc::Slice(
      bytes, payload.bytes.size(), [](void* p) { delete static_cast<Owner*>(p); }, owner);
}

grpc::ByteBuffer EncodeFrame(const DataFrame& frame, bool with_chunk, std::optional<std::string_view> header,
                             std::span<Payload> data) {
  std::string fields;
  {
    google::protobuf::io::StringOutputStream stream(&fields);
    CodedOutputStream out(&stream);
    if (with_chunk && frame.chunk != 0) {
      out.WriteTag(Tag(kChunk, kVarint));
      out.WriteVarint32(frame.chunk);
    }
    if (header.has_value()) {
      out.WriteTag(Tag(kHeader, kBytes));
      out.WriteVarint32(static_cast<uint32_t>(header->size()));
      out.WriteRaw(header->data(), static_cast<int>(header->size()));
    }
    if (frame.slab != 0) {
      out.WriteTag(Tag(kSlab, kVarint));
      out.WriteVarint32(frame.slab);
    }
    if (frame.offset != 0) {
      out.WriteTag(Tag(kOffset, kVarint));
      out.WriteVarint64(frame.offset);
    }
    if (!data.empty()) {
      size_t bytes = 0;
      for (const Payload& payload : data) bytes += payload.bytes.size();
      out.WriteTag(Tag(kData, kBytes));
      out.WriteVarint32(static_cast<uint32_t>(bytes));
    }
  }
  std::vector<grpc::Slice> slices = {grpc::Slice(fields)};
  slices.reserve(1 + data.size());
  for (Payload& payload : data) {
    if (!payload.bytes.empty()) slices.push_back(SliceOf(std::move(payload)));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// Reads forward over the bytes of many slices.
class SliceReader {
 public:
  explicit SliceReader(std::span<const grpc::Slice> slices) : slices_(slices) {
    for (const grpc::Slice& slice : slices) remaining_ += slice.size();
  }

  uint64_t remaining() const { return remaining_; }

  // At most `max_bytes` bytes long, as protobuf limits tags and lengths to 5 and values to 10. Bits beyond the 64th are
  // dropped, as protobuf does.
  bool ReadVarint(int max_bytes, uint64_t* value) {
    *value = 0;
    for (int i = 0; i < max_bytes; ++i) {
      uint8_t byte = 0;
      if (!Visit(1, [&](std::span<const uint8_t> part) { byte = part[0]; })) return false;
      *value |= uint64_t{byte & 0x7fu} << (7 * i);
      if (byte < 0x80) return true;
    }
    return false;
  }

  // Passes the next `n` bytes to `visit`, in non-empty parts. False when there are fewer.
  template <typename Visitor>
  bool Visit(uint64_t n, Visitor&& visit) {
    if (n > remaining_) return false;
    remaining_ -= n;
    while (n > 0) {
      const grpc::Slice& slice = slices_[index_];
      const size_t take = static_cast<size_t>(std::min<uint64_t>(n, slice.size() - position_));
      if (take > 0) visit(std::span(slice.begin() + position_, take));
      n -= take;
      position_ += take;
      if (position_ == slice.size()) {
        ++index_;
        position_ = 0;
      }
    }
    return true;
  }

  bool Skip(uint64_t n) {
    return Visit(n, [](std::span<const uint8_t>) {});
  }

 private:
  std::span<const grpc::Slice> slices_;
  size_t index_ = 0;
  size_t position_ = 0;  // within slices_[index_]
  uint64_t remaining_ = 0;
};

template <typename... Args>
absl::Status Malformed(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError("malformed frame: " + fmt::format(format, std::forward<Args>(args)...));
}

// Skips a field whose tag has been read. `groups` holds the numbers of the groups that are open.
absl::Status SkipField(SliceReader& in, uint32_t tag, std::vector<uint32_t>& groups) {
  const uint32_t number = tag >> 3;
  uint64_t value = 0;
  switch (tag & 7) {
    case kVarint:
      if (in.ReadVarint(10, &value)) return absl::OkStatus();
      break;
    case kFixed64:
      if (in.Skip(8)) return absl::OkStatus();
      break;
    case kBytes:
      if (in.ReadVarint(5, &value) && in.Skip(value)) return absl::OkStatus();
      break;
    case kGroupStart:
      if (groups.size() == kMaxGroupDepth) return Malformed("groups are nested deeper than {}", kMaxGroupDepth);
      groups.push_back(number);
      return absl::OkStatus();
    case kGroupEnd:
      if (groups.empty() || groups.back() != number) return Malformed("group {} ends but is not open", number);
      groups.pop_back();
      return absl::OkStatus();
    case kFixed32:
      if (in.Skip(4)) return absl::OkStatus();
      break;
    default:
      return Malformed("field {} has the unknown wire type {}", number, tag & 7);
  }
  return Malformed("it ends inside field {}", number);
}

}  // namespace

grpc::ByteBuffer EncodeFetchData(const DataFrame& frame, Payload payload) {
  return EncodeFrame(frame, /*with_chunk=*/true, std::nullopt, std::span(&payload, 1));
}

grpc::ByteBuffer EncodeStoreData(const DataFrame& frame, Payload payload) {
  return EncodeFrame(frame, /*with_chunk=*/false, std::nullopt, std::span(&payload, 1));
}

grpc::ByteBuffer EncodeFetchFrame(const DataFrame& frame, std::optional<std::string_view> result,
                                  std::span<Payload> data) {
  return EncodeFrame(frame, /*with_chunk=*/true, result, data);
}

absl::StatusOr<ParsedFrame> ParseFrame(const grpc::ByteBuffer& message) {
  ParsedFrame frame;
  if (const grpc::Status dumped = message.Dump(&frame.slices_); !dumped.ok()) {
    return Malformed("{}", dumped.error_message());
  }
  SliceReader in(frame.slices_);
  std::vector<uint32_t> groups;
  while (in.remaining() > 0) {
    uint64_t value = 0;
    if (!in.ReadVarint(5, &value)) return Malformed("it ends inside a tag");
    const uint32_t tag = static_cast<uint32_t>(value);
    if (tag >> 3 == 0) return Malformed("field number 0");
    // Inside an unknown group nothing is ours; 0 is no field's tag.
    switch (groups.empty() ? tag : 0) {
      case Tag(kChunk, kVarint):
        if (!in.ReadVarint(10, &value)) return Malformed("it ends inside `chunk`");
        frame.where.chunk = static_cast<uint32_t>(value);
        break;
      case Tag(kSlab, kVarint):
        if (!in.ReadVarint(10, &value)) return Malformed("it ends inside `slab`");
        frame.where.slab = static_cast<uint32_t>(value);
        break;
      case Tag(kOffset, kVarint):
        if (!in.ReadVarint(10, &value)) return Malformed("it ends inside `offset`");
        frame.where.offset = value;
        break;
      case Tag(kHeader, kBytes): {
        if (!in.ReadVarint(5, &value) || value > in.remaining()) return Malformed("it ends inside its header");
        // A message that comes twice is merged; its bytes, one after another, are the merged message.
        if (frame.header.size() + value > kMaxHeaderBytes) {
          return absl::InvalidArgumentError(fmt::format("frame header of {} bytes; at most {} are accepted",
                                                        frame.header.size() + value, kMaxHeaderBytes));
        }
        frame.has_header = true;
        in.Visit(value, [&](std::span<const uint8_t> part) { frame.header.append(part.begin(), part.end()); });
        break;
      }
      case Tag(kData, kBytes):
        if (!in.ReadVarint(5, &value) || value > in.remaining()) return Malformed("it ends inside `data`");
        if (value > kMaxFrameBytes) {
          return absl::InvalidArgumentError(
              fmt::format("frame with {} bytes of data; send at most {} in one", value, kMaxFrameBytes));
        }
        frame.data.clear();  // of a field that comes twice, the last one counts
        frame.data_bytes = value;
        in.Visit(value, [&](std::span<const uint8_t> part) { frame.data.push_back(part); });
        break;
      default:
        if (absl::Status skipped = SkipField(in, tag, groups); !skipped.ok()) return skipped;
    }
  }
  if (!groups.empty()) return Malformed("it ends inside group {}", groups.back());
  return frame;
}

grpc::ByteBuffer EncodeMessage(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  grpc::Slice slice(size);
  // A fresh slice has one reference, ours: writing into it is allowed.
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status DecodeMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message) {
  grpc::ByteBuffer copy = bytes;  // the reader wants a mutable buffer; this shares the slices
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok() || !message->ParseFromZeroCopyStream(&reader)) {
    return absl::InvalidArgumentError(
        fmt::format("malformed message: the bytes are not a {}", std::string(message->GetTypeName())));
  }
  return absl::OkStatus();
}

}  // namespace kdn::wire
