#include "kdn-client/ctl/trace_joiner.h"

#include <algorithm>
#include <cstring>

#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr uint32_t kMostPosition = uint32_t{1} << 24;  // no prompt is longer
constexpr size_t kMostSpaces = 4096;                   // whose chunks' length is remembered

}  // namespace

absl::StatusOr<RecordedPiece> PieceFromWire(const v1::RecordedRequest& request) {
  RecordedPiece piece;
  piece.unix_us = request.unix_us();
  piece.chunk_tokens = request.chunk_tokens();
  const absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(request.space_id()));
  if (!space.ok()) return DataLoss("a request's space: {}", MessageOf(space.status()));
  piece.space = *space;
  if (!request.trace_id().empty()) {
    if (request.trace_id().size() != piece.trace.size()) {
      return DataLoss("a request's trace id has {} bytes, not {}", request.trace_id().size(), piece.trace.size());
    }
    std::memcpy(piece.trace.data(), request.trace_id().data(), piece.trace.size());
  }
  const std::string& keys = request.keys();
  if (keys.size() % kDigestSize != 0) return DataLoss("a request's keys have {} bytes", keys.size());
  const size_t count = keys.size() / kDigestSize;
  for (size_t i = 0; i < count; ++i) {
    KDN_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(AsBytes(keys).subspan(i * kDigestSize, kDigestSize)));
    piece.keys.push_back(key);
  }
  const bool placed = static_cast<size_t>(request.positions_size()) == count;
  const bool measured = static_cast<size_t>(request.prefix_tokens_size()) == count;
  for (size_t i = 0; i < count; ++i) {
    const int at = static_cast<int>(i);
    const uint32_t prefix = measured ? request.prefix_tokens(at) : 0;
    uint32_t position = RecordedPiece::kNoPosition;
    if (placed) {
      position = request.positions(at);
    } else if (!request.fetch()) {
      position = static_cast<uint32_t>(i);
    } else if (prefix > 0 && piece.chunk_tokens > 0) {
      position = (prefix - 1) / piece.chunk_tokens;  // a fetch may be of any part of a prompt
    }
    if (position != RecordedPiece::kNoPosition && position >= kMostPosition) {
      return DataLoss("a chunk is the {}th of its prompt", position);
    }
    piece.positions.push_back(position);
    if (prefix > piece.prefix_tokens && position != RecordedPiece::kNoPosition) {
      piece.prefix_tokens = prefix;
      piece.prefix_chunks = position + 1;
    }
  }
  return piece;
}

bool TraceJoiner::Fits(const Pending& pending, const RecordedPiece& piece) const {
  for (size_t i = 0; i < piece.keys.size(); ++i) {
    const auto known = pending.chunks.find(piece.positions[i]);
    if (known != pending.chunks.end() && known->second != piece.keys[i]) return false;
  }
  return true;
}

void TraceJoiner::Add(const RecordedPiece& piece, SteadyClock::Point now) {
  if (piece.chunk_tokens > 0 && (chunk_tokens_.contains(piece.space) || chunk_tokens_.size() < kMostSpaces)) {
    uint32_t& tokens = chunk_tokens_[piece.space];
    tokens = std::max(tokens, piece.chunk_tokens);
  }
  const std::pair<SpaceId, TraceId> of(piece.space, piece.trace);
  const bool traced = piece.trace != TraceId{};
  const auto known = traced ? latest_.find(of) : latest_.end();
  auto at = pending_.end();
  if (known != latest_.end() && Fits(*known->second, piece)) {
    at = known->second;
  } else {
    at = pending_.insert(pending_.end(), Pending{.came = now, .unix_us = piece.unix_us, .of = of});
    if (traced) latest_[of] = at;
  }
  Pending& pending = *at;
  pending.unix_us = std::min(pending.unix_us, piece.unix_us);
  for (size_t i = 0; i < piece.keys.size(); ++i) {
    if (piece.positions[i] == RecordedPiece::kNoPosition) {
      ++pending.lost;
    } else if (pending.chunks.emplace(piece.positions[i], piece.keys[i]).second) {
      ++pending_chunks_;
    }
  }
  if (piece.prefix_tokens > pending.prefix_tokens) {
    pending.prefix_tokens = piece.prefix_tokens;
    pending.prefix_chunks = piece.prefix_chunks;
  }
  while (pending_chunks_ > options_.most_chunks && pending_.size() > 1) EmitOldest(1);
}

void TraceJoiner::EmitUntil(SteadyClock::Point now) {
  const auto young = std::find_if(pending_.begin(), pending_.end(),
                                  [&](const Pending& pending) { return now - pending.came < options_.window; });
  EmitOldest(static_cast<size_t>(std::distance(pending_.begin(), young)));
}

void TraceJoiner::EmitAll() { EmitOldest(pending_.size()); }

void TraceJoiner::EmitOldest(size_t count) {
  std::list<Pending> ready;
  for (; count > 0; --count) {
    const auto oldest = pending_.begin();
    if (const auto it = latest_.find(oldest->of); it != latest_.end() && it->second == oldest) latest_.erase(it);
    pending_chunks_ -= oldest->chunks.size();
    ready.splice(ready.end(), pending_, oldest);
  }
  ready.sort([](const Pending& a, const Pending& b) { return a.unix_us < b.unix_us; });
  for (Pending& pending : ready) Emit(pending);
}

void TraceJoiner::Emit(Pending& pending) {
  JoinedRequest request = {.unix_us = pending.unix_us};
  for (const auto& [position, key] : pending.chunks) {
    if (position != request.keys.size()) break;
    request.keys.push_back(key);
  }
  left_out_ += pending.chunks.size() - request.keys.size() + pending.lost;
  if (request.keys.empty()) return;
  const auto chunks = static_cast<uint32_t>(request.keys.size());
  const auto usual = chunk_tokens_.find(pending.of.first);
  const uint32_t chunk_tokens = usual == chunk_tokens_.end() ? 0 : usual->second;
  // What is behind the last chunk whose end is known is taken for whole chunks.
  request.input_tokens = pending.prefix_chunks > 0 && pending.prefix_chunks <= chunks
                             ? pending.prefix_tokens + (chunks - pending.prefix_chunks) * chunk_tokens
                             : chunks * chunk_tokens;
  on_request_(request);
}

}  // namespace kdn::ctl
