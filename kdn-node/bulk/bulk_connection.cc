#include "kdn-node/bulk/bulk_connection.h"

#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kdn-node/analytics_calls.h"
#include "kdn-node/answer_lookup.h"
#include "kdn-node/call_record.h"
#include "kdn-node/wire_convert.h"
#include "proto/wire/frames.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using std::chrono::seconds;

// Other connections get their turn after so many bytes.
constexpr uint64_t kTurnBytes = uint64_t{8} << 20;
// What a fetch reserves of the budget: a batch that is being sent, or lent, and the next.
constexpr uint64_t kFetchBytes = uint64_t{8} << 20;
// Read at a time of an upload, so that bytes are hashed while they are in the processor's cache.
constexpr size_t kReadBytes = size_t{256} << 10;
// How long a peer may take to greet, to go on with a frame or take bytes, and to give back what it was lent.
constexpr seconds kGreetTime{10};
constexpr seconds kProgressTime{60};
constexpr seconds kLendTime{30};
// Longer waits than this are as good as endless; keeps sums in range.
constexpr uint64_t kLongestTimeoutUs = uint64_t{24} * 3600 * 1'000'000;

BulkConnection::Time Now() { return std::chrono::steady_clock::now(); }

}  // namespace

BulkConnection::BulkConnection(ServiceState& state, const BulkIdentity& identity, UniqueFd socket, bool local)
    : state_(state),
      identity_(identity),
      socket_(std::move(socket)),
      local_(local),
      reader_(socket_.get()),
      greeting_due_(Now() + kGreetTime),
      due_(greeting_due_.time_since_epoch().count()),
      held_(state.fetches) {}

void BulkConnection::Abort() { shutdown(socket_.get(), SHUT_RDWR); }

BulkConnection::Wait BulkConnection::Run() {
  // It is this node's turn. The thread that ran this last stored what is acquired here.
  due_.exchange(Time::max().time_since_epoch().count(), std::memory_order_acquire);
  turn_bytes_ = 0;
  Wait wait = Step();
  while (wait == Wait::kForTurn && turn_bytes_ < kTurnBytes) wait = Step();
  if (wait == Wait::kToRead) reader_.Trim();
  due_.store(DueAfter(wait).time_since_epoch().count(), std::memory_order_release);
  return wait;
}

BulkConnection::Time BulkConnection::DueAfter(Wait wait) const {
  const Time now = Now();
  if (stage_ == Stage::kPreface || stage_ == Stage::kHello) return greeting_due_;
  if (stage_ == Stage::kDraining) return draining_due_;
  if (!lent_.empty()) return now + kLendTime;
  const bool midway = wait != Wait::kToRead || store_.has_value() || !reader_.buffered().empty();
  return midway ? now + kProgressTime : Time::max();
}

BulkConnection::Wait BulkConnection::Step() {
  if (!writer_.empty()) {
    if (const Wait sent = Send(); sent != Wait::kForTurn) return sent;
  }
  if (stage_ == Stage::kRefused) {
    shutdown(socket_.get(), SHUT_WR);
    stage_ = Stage::kDraining;
    draining_due_ = Now() + kGreetTime;
  }
  if (stage_ == Stage::kDraining) return Drain();
  if (fetch_.has_value() && lent_bytes_ < kLendBytes) {
    GoOnFetching();
    return Wait::kForTurn;
  }
  if (store_.has_value() && store_->receiving()) return ReadChunk();
  return ReadFrame();
}

BulkConnection::Wait BulkConnection::Send() {
  const SocketState state = writer_.SendTo(socket_.get(), &turn_bytes_);
  sched_yield();  // a lookup should not wait for a processor until a long fetch has used up its time
  switch (state) {
    case SocketState::kReady:
      return Wait::kForTurn;
    case SocketState::kBlocked:
      return Wait::kToWrite;
    case SocketState::kClosed:
      break;
  }
  return Wait::kOver;
}

void BulkConnection::Queue(const std::string& frame) { writer_.Add(SharedBuffer::CopyOf(AsBytes(frame))); }

BulkConnection::Wait BulkConnection::ReadFrame() {
  const auto filled = [this](size_t bytes) { return reader_.Fill(bytes); };
  const auto wait_for = [](SocketState state) { return state == SocketState::kBlocked ? Wait::kToRead : Wait::kOver; };
  if (stage_ == Stage::kPreface) {
    if (const SocketState state = filled(wire::kBulkPreface.size()); state != SocketState::kReady) {
      return wait_for(state);
    }
    if (!AsStringView(reader_.buffered()).starts_with(wire::kBulkPreface)) return Wait::kOver;
    reader_.Consume(wire::kBulkPreface.size());
    stage_ = Stage::kHello;
  }
  if (const SocketState state = filled(wire::kBulkHeaderBytes); state != SocketState::kReady) return wait_for(state);
  const absl::StatusOr<wire::BulkHeader> header =
      wire::ParseBulkHeader(reader_.buffered().first<wire::kBulkHeaderBytes>());
  if (!header.ok()) return Refuse(header.status());
  if (header->message_bytes > wire::kMaxMessageBytes) {
    return Refuse(InvalidArgument("a message of {} bytes; at most {} are allowed", header->message_bytes,
                                  wire::kMaxMessageBytes));
  }
  const size_t size = wire::kBulkHeaderBytes + header->message_bytes;
  if (const SocketState state = filled(size); state != SocketState::kReady) return wait_for(state);
  const ByteSpan message = reader_.buffered().subspan(wire::kBulkHeaderBytes, header->message_bytes);
  const Wait wait = OnFrame(header->type, message, header->data_bytes);
  reader_.Consume(size);
  turn_bytes_ += size;
  return wait;
}

BulkConnection::Wait BulkConnection::OnFrame(wire::BulkType type, ByteSpan message, uint64_t data_bytes) {
  if (stage_ == Stage::kHello) return type == wire::BulkType::kHello ? Greet(message) : Wait::kOver;
  absl::Status status;
  if (type == wire::BulkType::kChunk && store_.has_value()) {
    status = store_->BeginChunk(message, data_bytes);
  } else if (data_bytes > 0) {
    status = InvalidArgument("a frame of type {} has data, which only chunks have", static_cast<int>(type));
  } else if (type == wire::BulkType::kRelease && local_) {
    status = OnRelease(message);
  } else if (type == wire::BulkType::kCall && !fetch_.has_value() && !store_.has_value()) {
    status = OnCall(message);
  } else {
    status = InvalidArgument("a frame of type {} came where none may", static_cast<int>(type));
  }
  return status.ok() ? Wait::kForTurn : Refuse(status);
}

BulkConnection::Wait BulkConnection::Greet(ByteSpan message) {
  v1::BulkHello hello;
  if (!hello.ParseFromArray(message.data(), static_cast<int>(message.size()))) return Wait::kOver;
  if (hello.version() != wire::kBulkVersion) return Wait::kOver;  // the client goes on by gRPC
  stage_ = Stage::kCalls;
  v1::BulkWelcome welcome;
  welcome.set_version(wire::kBulkVersion);
  welcome.set_machine(identity_.machine);
  welcome.set_local_socket(identity_.local_socket);
  if (local_) {
    const SharedArena& arena = *state_.store.arena();
    welcome.set_shared_bytes(arena.size());
    const std::string frame = wire::EncodeBulkFrame(wire::BulkType::kWelcome, welcome);
    return SendWithDescriptor(socket_.get(), AsBytes(frame), arena.fd()) ? Wait::kForTurn : Wait::kOver;
  }
  Queue(wire::EncodeBulkFrame(wire::BulkType::kWelcome, welcome));
  return Wait::kForTurn;
}

absl::Status BulkConnection::OnCall(ByteSpan message) {
  v1::BulkCall call;
  if (!call.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return InvalidArgument("malformed frame: its message is not a BulkCall");
  }
  // Whoever calls again has no use for what the last call lent.
  lent_.clear();
  lent_bytes_ = 0;
  held_.ShrinkTo(0);
  const Time deadline = Now() + std::chrono::microseconds(std::min(call.timeout_us(), kLongestTimeoutUs));
  // Valid while `call` is.
  const CallOrigin origin = {.traceparent = call.traceparent(), .socket = socket_.get(), .local = local_};
  switch (call.call_case()) {
    case v1::BulkCall::kLookup: {
      const CallRecord record(state_, Method::kLookup, origin);
      v1::BulkAnswer answer;
      absl::Status status = state_.Admit();
      if (status.ok()) status = AnswerLookup(state_, record, call.lookup(), *answer.mutable_lookup());
      record.End(status);
      Answer(std::move(answer), status);
      return absl::OkStatus();
    }
    case v1::BulkCall::kFetch:
      if (const absl::Status refused = StartFetch(call.fetch(), origin, deadline); !refused.ok()) {
        CallRecord(state_, Method::kFetch, origin).End(refused);
        Answer({}, refused);
      }
      return absl::OkStatus();
    case v1::BulkCall::kStore:
      // Its chunks follow in any case, so a store that is refused ends the connection.
      return StartStore(call.store(), origin);
    case v1::BulkCall::CALL_NOT_SET:
      break;
  }
  return Unimplemented("the call is none that this node knows");
}

absl::Status BulkConnection::StartFetch(const v1::FetchRequest& request, const CallOrigin& origin, Time deadline) {
  KDN_RETURN_IF_ERROR(state_.Admit());
  KDN_ASSIGN_OR_RETURN(FetchCall call, ParseFetchRequest(request));
  if (!held_.Grow(std::min(kFetchBytes, state_.options.max_fetch_bytes))) {
    RecordRefused(state_, call);
    return ResourceExhausted("fetches in progress hold {} of {} bytes; retry later, or raise --max-fetch-bytes",
                             state_.fetches.held(), state_.fetches.limit());
  }
  if (call.asker == Asker::kEngine) state_.NoteFetch(call.what);
  active_.emplace(state_.streams);
  fetch_.emplace(state_, origin, std::move(call), deadline, /*lend=*/local_);
  return absl::OkStatus();
}

absl::Status BulkConnection::StartStore(const v1::BulkStore& request, const CallOrigin& origin) {
  if (const absl::Status admitted = state_.Admit(); !admitted.ok()) {
    CallRecord(state_, Method::kStore, origin).End(admitted);
    return admitted;
  }
  if (request.chunks() == 0 || request.chunks() > wire::kMaxKeysPerCall) {
    return InvalidArgument("{} chunks in one call; 1 to {} are allowed", request.chunks(), wire::kMaxKeysPerCall);
  }
  active_.emplace(state_.streams);
  store_.emplace(state_, origin, request.chunks());
  return absl::OkStatus();
}

absl::Status BulkConnection::OnRelease(ByteSpan message) {
  v1::BulkRelease release;
  if (!release.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return InvalidArgument("malformed frame: its message is not a BulkRelease");
  }
  for (uint32_t i = 0; i < release.batches() && !lent_.empty(); ++i) {
    lent_bytes_ -= lent_.front().bytes;
    lent_.pop_front();
  }
  if (lent_.empty() && !fetch_.has_value()) held_.ShrinkTo(0);
  return absl::OkStatus();
}

void BulkConnection::GoOnFetching() {
  absl::Status status;
  if (!fetch_->done() && Now() >= fetch_->deadline()) status = DeadlineExceeded("the deadline passed");
  if (status.ok() && !fetch_->done()) {
    BulkBatch batch = fetch_->Next();
    Queue(batch.frame);
    for (SharedBuffer& bytes : batch.data) writer_.Add(std::move(bytes));
    // The peer gives back batches of which it was lent something, and no others.
    if (!batch.lent.empty()) lent_.push_back({.slabs = std::move(batch.lent), .bytes = batch.lent_bytes});
    lent_bytes_ += batch.lent_bytes;
    if (!fetch_->done()) return;
  }
  fetch_->End(status);
  fetch_.reset();
  active_.reset();
  if (lent_.empty()) held_.ShrinkTo(0);
  Answer({}, status);
}

BulkConnection::Wait BulkConnection::ReadChunk() {
  while (store_->awaited() > 0) {
    const MutableByteSpan rest = store_->Room();
    const std::array<MutableByteSpan, 1> room = {rest.first(std::min(rest.size(), kReadBytes))};
    uint64_t read = 0;
    const SocketState state = reader_.ReadInto(room, &read);
    if (state != SocketState::kReady) return state == SocketState::kBlocked ? Wait::kToRead : Wait::kOver;
    store_->Received(read);
    turn_bytes_ += read;
    if (turn_bytes_ >= kTurnBytes) return Wait::kForTurn;
  }
  store_->EndChunk();
  if (!store_->all_here()) return Wait::kForTurn;
  v1::BulkAnswer answer;
  *answer.mutable_store() = store_->End(absl::OkStatus());
  store_.reset();
  active_.reset();
  Answer(std::move(answer), absl::OkStatus());
  return Wait::kForTurn;
}

// If the connection were closed with bytes of the peer unread, the peer would lose its answer.
BulkConnection::Wait BulkConnection::Drain() {
  std::array<uint8_t, 4096> ignored;
  const std::array<MutableByteSpan, 1> room = {MutableByteSpan(ignored)};
  for (;;) {
    uint64_t read = 0;
    const SocketState state = reader_.ReadInto(room, &read);
    if (state != SocketState::kReady) return state == SocketState::kBlocked ? Wait::kToRead : Wait::kOver;
    turn_bytes_ += read;
    if (turn_bytes_ >= kTurnBytes) return Wait::kForTurn;
  }
}

void BulkConnection::Answer(v1::BulkAnswer answer, const absl::Status& status) {
  if (!status.ok()) answer.clear_lookup();
  *answer.mutable_status() = ToWire(status);
  Queue(wire::EncodeBulkFrame(wire::BulkType::kAnswer, answer));
}

BulkConnection::Wait BulkConnection::Refuse(const absl::Status& why) {
  if (fetch_.has_value()) fetch_->End(why);
  if (store_.has_value()) store_->End(why);
  fetch_.reset();
  store_.reset();
  active_.reset();
  stage_ = Stage::kRefused;
  Answer({}, why);
  return Wait::kForTurn;
}

}  // namespace kdn
