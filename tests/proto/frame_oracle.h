// FrameOracle: protobuf's own parser as the judge of wire::ParseFrame.
//
// Shared by the unit tests and the fuzz target: whatever the bytes, the two must agree.
#ifndef KDN_TESTS_PROTO_FRAME_ORACLE_H_
#define KDN_TESTS_PROTO_FRAME_ORACLE_H_

#include <fmt/core.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "kdn/v1/node.pb.h"
#include "proto/wire/frames.h"

namespace kdn::wire {

// A message of the given bytes, cut into slices of at most `slice_bytes`.
inline grpc::ByteBuffer CutIntoSlices(std::string_view bytes, size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += slice_bytes) {
    slices.emplace_back(bytes.data() + at, std::min(slice_bytes, bytes.size() - at));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

inline std::string Joined(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  std::string joined;
  if (!message.Dump(&slices).ok()) return joined;
  for (const grpc::Slice& slice : slices) joined.append(slice.begin(), slice.end());
  return joined;
}

inline std::string DataOf(const ParsedFrame& frame) {
  std::string data;
  for (const std::span<const uint8_t> part : frame.data) data.append(part.begin(), part.end());
  return data;
}

// Empty when ParseFrame and protobuf agree about `bytes` as a FetchFrame; otherwise what they disagree about.
inline std::string DisagreementAbout(std::string_view bytes, size_t slice_bytes) {
  const absl::StatusOr<ParsedFrame> ours = ParseFrame(CutIntoSlices(bytes, slice_bytes));
  const google::protobuf::LogSilencer no_complaints_about_hostile_bytes;
  v1::FetchFrame theirs;
  const bool valid = theirs.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (!ours.ok()) {
    return valid && theirs.data().size() <= kMaxFrameBytes && theirs.result().ByteSizeLong() <= kMaxHeaderBytes
               ? "protobuf accepts what ParseFrame refuses: " + std::string(ours.status().message())
               : "";
  }
  // ParseFrame leaves the header to whoever reads it, so that only a bad header may explain a refusal.
  if (!valid) return ours->has_header ? "" : "ParseFrame accepts what protobuf refuses";
  if (ours->where.chunk != theirs.chunk()) return fmt::format("chunk {} is not {}", ours->where.chunk, theirs.chunk());
  if (ours->where.slab != theirs.slab()) return fmt::format("slab {} is not {}", ours->where.slab, theirs.slab());
  if (ours->where.offset != theirs.offset()) {
    return fmt::format("offset {} is not {}", ours->where.offset, theirs.offset());
  }
  if (ours->has_header != theirs.has_result()) return "they disagree on whether there is a header";
  v1::ChunkResult header;
  if (!header.ParseFromString(ours->header)) return "the header is not a ChunkResult";
  if (header.SerializeAsString() != theirs.result().SerializeAsString()) return "the headers differ";
  if (DataOf(*ours) != theirs.data() || ours->data_bytes != theirs.data().size()) return "the data differ";
  return "";
}

}  // namespace kdn::wire

#endif  // KDN_TESTS_PROTO_FRAME_ORACLE_H_
