#include "kdn-client/bulk/bulk_calls.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kdn-client/from_wire.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"
#include "storage/base/trace_context.h"

namespace kdn {
namespace {

// Read at a time, so that bytes are verified while they are in the processor's cache.
constexpr uint64_t kReadBytes = BulkSocket::kScratchBytes;
// Other threads that wait for this processor get a turn after so many bytes: a lookup should not wait for a long fetch.
constexpr uint64_t kTurnBytes = uint64_t{1} << 20;
// Taken out of shared memory at a time: little enough for the first-level cache, and for memcpy not to fall back on a
// string instruction, which some processors are slow at.
constexpr size_t kPieceBytes = size_t{4} << 10;
// Rooms that are prepared ahead for one read.
constexpr size_t kMaxRooms = 16;

v1::BulkCall CallUntil(absl::Time deadline) {
  v1::BulkCall call;
  const int64_t left = absl::ToInt64Microseconds(deadline - Clock::Real().Now());
  call.set_timeout_us(static_cast<uint64_t>(std::max<int64_t>(left, 0)));
  call.set_traceparent(FormatTraceparent(CurrentOrNewTrace()));
  return call;
}

template <typename Message>
absl::Status Parse(const BulkSocket::Frame& frame, Message& message) {
  if (message.ParseFromArray(frame.message.data(), static_cast<int>(frame.message.size()))) return absl::OkStatus();
  return DataLoss("a frame's message is malformed");
}

absl::Status ReadAnswer(BulkSocket& socket, const BulkSocket::Frame& frame, v1::BulkAnswer& answer) {
  if (frame.type != wire::BulkType::kAnswer || frame.data_bytes > 0) {
    return DataLoss("a frame of type {} came where an answer must", static_cast<int>(frame.type));
  }
  KDN_RETURN_IF_ERROR(Parse(frame, answer));
  socket.EndCall();
  return StatusFromWire(answer.status());
}

// One fetch over one connection.
class Fetching {
 public:
  Fetching(BulkPeer::Loan& loan, absl::Time deadline, FetchReceiver& receiver)
      : socket_(*loan.socket), memory_(loan.memory.get()), deadline_(deadline), receiver_(receiver) {}

  absl::Status Run(const v1::BulkCall& call) {
    KDN_RETURN_IF_ERROR(socket_.SendFrame(wire::EncodeBulkFrame(wire::BulkType::kCall, call), deadline_));
    for (;;) {
      KDN_ASSIGN_OR_RETURN(const BulkSocket::Frame frame, socket_.ReadFrame(deadline_));
      if (frame.type != wire::BulkType::kSlabs) {
        v1::BulkAnswer answer;
        return ReadAnswer(socket_, frame, answer);
      }
      v1::BulkSlabs slabs;
      KDN_RETURN_IF_ERROR(Parse(frame, slabs));
      KDN_RETURN_IF_ERROR(OnSlabs(slabs, frame.data_bytes));
    }
  }

 private:
  // A slab whose bytes come behind the message, and where they go.
  struct Coming {
    const v1::BulkItem* item;
    MutableByteSpan room;  // empty: the socket's scratch, for as long as they are looked at
    uint64_t received = 0;
  };

  absl::Status OnSlabs(const v1::BulkSlabs& slabs, uint64_t data_bytes) {
    bool lent = false;
    for (const v1::BulkItem& item : slabs.items()) {
      if (item.has_result()) {
        // What came before belongs to chunks before this one.
        KDN_RETURN_IF_ERROR(ReceiveComing());
        KDN_RETURN_IF_ERROR(receiver_.OnResult(item.chunk(), item.result()));
        continue;
      }
      KDN_RETURN_IF_ERROR(receiver_.BeginSlab(item.chunk(), item.slab(), item.bytes()));
      if (item.bytes() == 0) continue;
      if (item.shared()) {
        KDN_RETURN_IF_ERROR(ReceiveComing());
        lent = true;
        KDN_RETURN_IF_ERROR(OnShared(item));
        continue;
      }
      if (item.bytes() > data_bytes) return DataLoss("a slab has more bytes than its frame");
      data_bytes -= item.bytes();
      coming_.push_back({.item = &item, .room = receiver_.Room(item.chunk(), item.slab())});
      coming_bytes_ += item.bytes();
      if (coming_bytes_ >= kReadBytes || coming_.size() == kMaxRooms) KDN_RETURN_IF_ERROR(ReceiveComing());
    }
    KDN_RETURN_IF_ERROR(ReceiveComing());
    if (data_bytes > 0) return DataLoss("a frame has {} bytes that are of no slab", data_bytes);
    return lent ? Release() : absl::OkStatus();
  }

  absl::Status OnShared(const v1::BulkItem& item) {
    const ByteSpan bytes = memory_ == nullptr ? ByteSpan() : memory_->At(item.offset(), item.bytes());
    if (bytes.empty()) return DataLoss("a slab is said to lie outside of shared memory");
    // What is verified must be what is used, so the bytes are first taken out of the node's reach: piece by piece into
    // memory that is in the cache, or all of them to where they are decoded from.
    const MutableByteSpan room = receiver_.Room(item.chunk(), item.slab());
    for (size_t offset = 0; offset < bytes.size(); offset += kPieceBytes) {
      const ByteSpan piece = bytes.subspan(offset, std::min(kPieceBytes, bytes.size() - offset));
      const MutableByteSpan taken = room.empty() ? socket_.scratch() : room.subspan(offset);
      std::memcpy(taken.data(), piece.data(), piece.size());
      receiver_.OnPart(item.chunk(), item.slab(), offset, taken.first(piece.size()));
    }
    return absl::OkStatus();
  }

  absl::Status Release() {
    v1::BulkRelease release;
    release.set_batches(1);
    return socket_.SendFrame(wire::EncodeBulkFrame(wire::BulkType::kRelease, release), deadline_);
  }

  // Receives the slabs in `coming_` to their end.
  absl::Status ReceiveComing() {
    size_t first = 0;
    while (first < coming_.size()) {
      rooms_.clear();
      for (size_t i = first, free = kReadBytes; i < coming_.size() && free > 0; ++i) {
        const Coming& slab = coming_[i];
        const uint64_t size = std::min<uint64_t>(slab.item->bytes() - slab.received, free);
        const MutableByteSpan rest =
            slab.room.empty() ? socket_.scratch().last(free) : slab.room.subspan(slab.received);
        rooms_.push_back(rest.first(size));
        free -= size;
      }
      KDN_ASSIGN_OR_RETURN(uint64_t read, socket_.ReadData(rooms_, deadline_));
      turn_bytes_ += read;
      if (turn_bytes_ >= kTurnBytes) {
        sched_yield();
        turn_bytes_ = 0;
      }
      for (size_t i = 0; read > 0; ++i) {
        const uint64_t part = std::min<uint64_t>(read, rooms_[i].size());
        Coming& slab = coming_[first];
        receiver_.OnPart(slab.item->chunk(), slab.item->slab(), slab.received, rooms_[i].first(part));
        slab.received += part;
        read -= part;
        if (slab.received == slab.item->bytes()) ++first;
      }
    }
    coming_.clear();
    coming_bytes_ = 0;
    return absl::OkStatus();
  }

  BulkSocket& socket_;
  const SharedMemory* const memory_;
  const absl::Time deadline_;
  FetchReceiver& receiver_;
  std::vector<Coming> coming_;
  uint64_t coming_bytes_ = 0;
  std::vector<MutableByteSpan> rooms_;
  uint64_t turn_bytes_ = 0;
};

}  // namespace

absl::Status BulkCalls::Call(absl::Time deadline, Cancellation* cancel,
                             const std::function<absl::Status(BulkPeer::Loan&)>& call) {
  for (bool again = false;; again = true) {
    absl::StatusOr<BulkPeer::Loan> taken = peer_.Take(deadline, cancel, /*fresh=*/again);
    absl::Status status = taken.status();
    if (taken.ok()) {
      const Cancellation::Link link(cancel, [&taken] { taken->socket->Abort(); });
      taken->socket->BeginCall();
      status = call(*taken);
    }
    if (cancel != nullptr && cancel->cancelled()) return status.ok() ? status : Cancelled("the call was cancelled");
    if (!taken.ok()) return status;
    BulkPeer::Loan& loan = *taken;
    if (loan.socket->answered()) {
      peer_.GiveBack(std::move(loan));
      return status;
    }
    const bool lost_before = absl::IsUnavailable(status) && loan.used_before && !loan.socket->has_read();
    if (!lost_before || again) return status;
  }
}

absl::StatusOr<v1::LookupResponse> BulkCalls::Lookup(v1::LookupRequest request, absl::Time deadline) {
  v1::BulkAnswer answer;
  v1::BulkCall message = CallUntil(deadline);
  *message.mutable_lookup() = std::move(request);
  const std::string frame = wire::EncodeBulkFrame(wire::BulkType::kCall, message);
  const absl::Status ended = Call(deadline, nullptr, [&](BulkPeer::Loan& loan) -> absl::Status {
    KDN_RETURN_IF_ERROR(loan.socket->SendFrame(frame, deadline));
    KDN_ASSIGN_OR_RETURN(const BulkSocket::Frame reply, loan.socket->ReadFrame(deadline));
    return ReadAnswer(*loan.socket, reply, answer);
  });
  if (!ended.ok()) return ended;
  return std::move(*answer.mutable_lookup());
}

absl::Status BulkCalls::Fetch(v1::FetchRequest request, absl::Time deadline, Cancellation* cancel,
                              FetchReceiver& receiver) {
  v1::BulkCall message = CallUntil(deadline);
  *message.mutable_fetch() = std::move(request);
  return Call(deadline, cancel, [&](BulkPeer::Loan& loan) { return Fetching(loan, deadline, receiver).Run(message); });
}

absl::StatusOr<v1::StoreResponse> BulkCalls::Store(std::span<const BulkChunk> chunks, absl::Time deadline) {
  v1::BulkCall message = CallUntil(deadline);
  message.mutable_store()->set_chunks(static_cast<uint32_t>(chunks.size()));
  v1::BulkAnswer answer;
  const absl::Status ended = Call(deadline, nullptr, [&](BulkPeer::Loan& loan) -> absl::Status {
    SocketWriter writer;
    const auto add = [&](const std::string& frame) { writer.Add(SharedBuffer::CopyOf(AsBytes(frame))); };
    add(wire::EncodeBulkFrame(wire::BulkType::kCall, message));
    for (const BulkChunk& chunk : chunks) {
      add(wire::EncodeBulkFrame(wire::BulkType::kChunk, chunk.begin, chunk.chunk->manifest->EncodedBytes()));
      for (const SharedBuffer& slab : chunk.chunk->slabs) writer.Add(slab);
    }
    bool sent_all = false;
    KDN_RETURN_IF_ERROR(loan.socket->Send(writer, deadline, &sent_all));
    KDN_ASSIGN_OR_RETURN(const BulkSocket::Frame reply, loan.socket->ReadFrame(deadline));
    return ReadAnswer(*loan.socket, reply, answer);
  });
  if (!ended.ok()) return ended;
  return std::move(*answer.mutable_store());
}

}  // namespace kdn
