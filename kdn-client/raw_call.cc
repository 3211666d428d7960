#include "kdn-client/raw_call.h"

#include "absl/time/time.h"
#include "proto/wire/trace_metadata.h"

namespace kdn {

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

RawCall::RawCall(grpc::GenericStub& stub, const std::string& method, absl::Time deadline) {
  context_.set_deadline(absl::ToChronoTime(deadline));
  wire::SendTrace(context_);
  // Metadata leave with the first message; StartCall then completes nothing by itself.
  context_.set_initial_metadata_corked(true);
  stream_ = stub.PrepareCall(&context_, method, &queue_);
  stream_->StartCall(nullptr);
}

RawCall::~RawCall() {
  if (!finished_) {
    Cancel();
    (void)Finish();
  }
  queue_.Shutdown();
  while (Wait()) {
  }
}

bool RawCall::Write(const grpc::ByteBuffer& message) {
  stream_->Write(message, nullptr);
  return Wait();
}

bool RawCall::WriteLast(const grpc::ByteBuffer& message) {
  stream_->WriteLast(message, grpc::WriteOptions(), nullptr);
  return Wait();
}

bool RawCall::WritesDone() {
  stream_->WritesDone(nullptr);
  return Wait();
}

bool RawCall::Read(grpc::ByteBuffer* message) {
  stream_->Read(message, nullptr);
  return Wait();
}

absl::Status RawCall::Finish() {
  grpc::Status status;
  stream_->Finish(&status, nullptr);
  Wait();
  finished_ = true;
  return FromGrpc(status);
}

// There is never more than one operation under way, so whatever completes is it.
bool RawCall::Wait() {
  void* tag = nullptr;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

}  // namespace kdn
