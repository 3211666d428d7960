// RawCall: one gRPC streaming call with messages as byte buffers, driven step by step from one thread.
//
//   RawCall call(stub, "/kdn.v1.NodeService/Fetch", deadline);
//   call.WriteLast(request);
//   while (call.Read(&message)) Consume(message);
//   absl::Status ended = call.Finish();
//
// The caller's own thread does the network's work while it waits, which is what gRPC does fastest.
//
// Thread-safety: one thread.
#ifndef KDN_KDN_CLIENT_RAW_CALL_H_
#define KDN_KDN_CLIENT_RAW_CALL_H_

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kdn {

// The same code and message.
absl::Status FromGrpc(const grpc::Status& status);

class RawCall {
 public:
  RawCall(grpc::GenericStub& stub, const std::string& method, absl::Time deadline);
  // Cancels the call unless Finish was called.
  ~RawCall();
  RawCall(const RawCall&) = delete;
  RawCall& operator=(const RawCall&) = delete;

  // False: the call is over; Finish says why.
  bool Write(const grpc::ByteBuffer& message);
  bool WriteLast(const grpc::ByteBuffer& message);
  bool WritesDone();
  bool Read(grpc::ByteBuffer* message);

  void Cancel() { context_.TryCancel(); }
  // How the call ended, once there is nothing left to read (or after Cancel).
  absl::Status Finish();

 private:
  bool Wait();

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  bool finished_ = false;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_RAW_CALL_H_
