#include "storage/chunk.h"

#include "storage/base/status.h"

namespace kdn {

absl::Status VerifySlab(const Manifest& manifest, size_t index, ByteSpan encoded) {
  const SlabInfo& info = manifest.slabs[index];
  if (encoded.size() != info.encoded_size) {
    return DataLoss("slab {} of chunk {} has {} bytes; its manifest says {}", index, manifest.key.ToShortHex(),
                    encoded.size(), info.encoded_size);
  }
  if (SlabChecksum(encoded) != info.checksum) {
    return DataLoss("slab {} of chunk {} fails its checksum", index, manifest.key.ToShortHex());
  }
  return absl::OkStatus();
}

absl::Status VerifySlabs(const Chunk& chunk) {
  const Manifest& manifest = *chunk.manifest;
  if (chunk.slabs.size() != manifest.slabs.size()) {
    return InvalidArgument("chunk {} has {} slabs; its manifest names {}", manifest.key.ToShortHex(),
                           chunk.slabs.size(), manifest.slabs.size());
  }
  for (size_t i = 0; i < chunk.slabs.size(); ++i) KDN_RETURN_IF_ERROR(VerifySlab(manifest, i, chunk.slabs[i]));
  return absl::OkStatus();
}

std::optional<HeadRange> HeadRange::Of(uint32_t heads) const {
  const HeadRange closed = {.begin = begin, .end = end == HeadRange().end ? heads : end};
  if (closed.begin >= closed.end || closed.end > heads) return std::nullopt;
  return closed;
}

std::string_view TierKindName(TierKind tier) {
  switch (tier) {
    case TierKind::kNone:
      return "none";
    case TierKind::kMemory:
      return "memory";
    case TierKind::kDisk:
      return "disk";
    case TierKind::kColdDisk:
      return "cold disk";
  }
  return "unknown";
}

Retention Merge(const Retention& a, const Retention& b) {
  return {.expires = std::max(a.expires, b.expires), .lossy_allowed = a.lossy_allowed && b.lossy_allowed};
}

std::string_view MissReasonName(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kNotFound:
      return "not_found";
    case MissReason::kWrongSpace:
      return "wrong_space";
    case MissReason::kFidelity:
      return "fidelity";
    case MissReason::kCorrupt:
      return "corrupt";
    case MissReason::kGeometry:
      return "geometry";
    case MissReason::kUnknownCodec:
      return "unknown_codec";
    case MissReason::kDeadline:
      return "deadline";
    case MissReason::kUnreachable:
      return "unreachable";
    case MissReason::kRefused:
      return "refused";
    case MissReason::kCancelled:
      return "cancelled";
    case MissReason::kProtocol:
      return "protocol";
    case MissReason::kInternal:
      return "internal";
  }
  return "unknown";
}

Miss MissFromStatus(const absl::Status& status) {
  const auto reason = [&] {
    switch (status.code()) {
      case absl::StatusCode::kOk:
        return MissReason::kNone;
      case absl::StatusCode::kNotFound:
        return MissReason::kNotFound;
      case absl::StatusCode::kDataLoss:
        return MissReason::kCorrupt;
      case absl::StatusCode::kFailedPrecondition:
        return MissReason::kGeometry;
      case absl::StatusCode::kUnimplemented:
        return MissReason::kUnknownCodec;
      case absl::StatusCode::kDeadlineExceeded:
        return MissReason::kDeadline;
      case absl::StatusCode::kUnavailable:
        return MissReason::kUnreachable;
      case absl::StatusCode::kResourceExhausted:
        return MissReason::kRefused;
      case absl::StatusCode::kCancelled:
        return MissReason::kCancelled;
      default:
        return MissReason::kInternal;
    }
  }();
  return {reason, std::string(status.message())};
}

}  // namespace kdn
