#include "kdn-node/request_record.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "kdn-node/fetch_reader.h"
#include "proto/wire/trace_metadata.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// HOST:PORT at the other end of a socket, or "local".
std::string PeerOf(int socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "unknown";
  std::array<char, INET6_ADDRSTRLEN> host{};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, host.data(), host.size());
    return fmt::format("{}:{}", host.data(), ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, host.data(), host.size());
    return fmt::format("[{}]:{}", host.data(), ntohs(v6.sin6_port));
  }
  return "local";
}

// The node gives gRPC its connections as descriptors, so gRPC knows no more of its peer than that. It stays open while
// the call runs, unless the peer is just leaving.
std::string PeerOf(const grpc::ServerContextBase& context) {
  constexpr std::string_view kDescriptor = "fd:";
  std::string peer = context.peer();
  if (!peer.starts_with(kDescriptor)) return peer;
  int socket = -1;
  const char* const end = peer.data() + peer.size();
  const auto [parsed, error] = std::from_chars(peer.data() + kDescriptor.size(), end, socket);
  return error == std::errc() && parsed == end ? PeerOf(socket) : peer;
}

// Chunks that are simply not there, or not as the caller wants them, are what a cache is asked about every day; and
// whoever leaves has what it needs, perhaps from another node.
bool IsFault(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
    case MissReason::kNotFound:
    case MissReason::kWrongSpace:
    case MissReason::kFidelity:
    case MissReason::kCancelled:
      return false;
    default:
      return true;
  }
}

bool IsFault(const absl::Status& status) {
  return !status.ok() && !absl::IsNotFound(status) && !absl::IsCancelled(status);
}

// By TierKind.
constexpr std::array<std::string_view, 5> kTierFields = {"none", "memory", "disk", "remote", "cold_disk"};

}  // namespace

TraceId TraceOf(const CallOrigin& origin) {
  const absl::StatusOr<TraceContext> trace =
      ParseTraceparent(origin.context != nullptr ? wire::TraceparentOf(*origin.context) : origin.traceparent);
  return trace.ok() ? trace->trace_id : TraceId{};
}

RequestRecord::RequestRecord(const CallOrigin& origin) {
  if (origin.context != nullptr) {
    span_ = SpanOf(wire::TraceparentOf(*origin.context));
    peer_ = PeerOf(*origin.context);
    protocol_ = "grpc";
  } else {
    span_ = SpanOf(origin.traceparent);
    peer_ = PeerOf(origin.socket);
    protocol_ = origin.local ? "shared-memory" : "bulk";
  }
}

void RequestRecord::About(const std::optional<SpaceId>& space, size_t chunks) {
  space_ = space;
  chunks_ = chunks;
}

void RequestRecord::Count(MissReason miss, TierKind tier) {
  if (miss != MissReason::kNone) {
    ++missed_[static_cast<size_t>(miss)];
  } else {
    ++found_[static_cast<size_t>(tier)];
  }
}

void RequestRecord::Found(std::span<const FoundChunk> chunks) {
  for (const FoundChunk& chunk : chunks) Count(chunk.miss.reason, chunk.tier);
}

void RequestRecord::Fetched(const FetchReader& reader, MissReason unfinished) {
  About(reader.call().what);
  for (const AskedChunk& chunk : reader.Asked(unfinished)) Count(chunk.miss, chunk.tier);
}

void RequestRecord::Done(const absl::Status& chunk) {
  if (chunk.ok()) {
    ++done_;
  } else if (not_done_.ok()) {
    not_done_ = chunk;
  }
}

bool RequestRecord::Failed(const absl::Status& status) const {
  if (IsFault(status) || IsFault(not_done_)) return true;
  for (size_t reason = 0; reason < missed_.size(); ++reason) {
    if (missed_[reason] > 0 && IsFault(static_cast<MissReason>(reason))) return true;
  }
  return false;
}

void RequestRecord::Write(const RequestLog& log, std::string_view method, const absl::Status& status,
                          absl::Time started, absl::Time now) const {
  const std::string call = LoggedCallName(method);
  const auto microseconds = [&](absl::Time until) {
    return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(until - started)));
  };
  // The call's own status is what its caller got; a chunk's says more where that is OK.
  const absl::Status& told = status.ok() && !not_done_.ok() ? not_done_ : status;
  const LoggedRequest request = {.call = call,
                                 .span = span_,
                                 .peer = peer_,
                                 .protocol = protocol_,
                                 .status = status,
                                 .error = told.message().empty() ? "" : MessageOf(told),
                                 .failed = Failed(status),
                                 .took = now - started};
  log.Write(request, [&](LogFields& fields) {
    if (space_.has_value()) fields.Add("space", space_->ToShortHex());
    if (space_.has_value() || chunks_ > 0) fields.Add("chunks", chunks_);
    std::array<LogFields::Count, kTierFields.size()> found;
    for (size_t tier = 0; tier < found.size(); ++tier) {
      found[tier] = {.name = kTierFields[tier], .count = found_[tier]};
    }
    fields.AddCounts("found", found);
    std::array<LogFields::Count, kMissReasonCount> missed;
    for (size_t reason = 0; reason < missed.size(); ++reason) {
      missed[reason] = {.name = MissReasonName(static_cast<MissReason>(reason)), .count = missed_[reason]};
    }
    fields.AddCounts("missed", missed);
    if (done_ > 0 || !not_done_.ok()) fields.Add("done", done_);
    fields.Add("bytes", bytes_);
    if (begun_ != absl::InfinitePast()) fields.Add("queue_us", microseconds(begun_));
    if (first_byte_ != absl::InfinitePast()) fields.Add("first_byte_us", microseconds(first_byte_));
  });
}

}  // namespace kdn
