// EtcdWatchStream: one stream of etcd's Watch service to one member, read with a time limit.
//
//   EtcdWatchStream stream(member, request, interrupt);
//   absl::StatusOr<std::optional<etcdserverpb::WatchResponse>> message = stream.Next(absl::Now() + absl::Seconds(1));
//
// Nothing is read ahead: a slow reader is felt by etcd, not by this process's memory.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_REGISTRY_ETCD_WATCH_STREAM_H_
#define KDN_PLACEMENT_REGISTRY_ETCD_WATCH_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "placement/registry/etcd_members.h"
#include "placement/registry/interrupt.h"

namespace kdn {

class EtcdWatchStream {
 public:
  // `interrupt` ends it. Both outlive it.
  EtcdWatchStream(const EtcdMember& member, const etcdserverpb::WatchCreateRequest& request, Interrupt& interrupt);
  EtcdWatchStream(const EtcdWatchStream&) = delete;
  EtcdWatchStream& operator=(const EtcdWatchStream&) = delete;
  ~EtcdWatchStream();

  // Nothing when none came until `until`. An error, of the member's, once the stream is broken.
  absl::StatusOr<std::optional<etcdserverpb::WatchResponse>> Next(absl::Time until);
  // Asks for a sign of life, unless the last request is still on its way.
  void Probe();

 private:
  void Write(const etcdserverpb::WatchRequest& request);
  // Waits until nothing is under way, then for the status.
  absl::Status Finish();

  const EtcdMember& member_;
  etcdserverpb::WatchRequest create_;
  grpc::ClientContext context_;
  Interrupt::Scope scope_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>> stream_;
  etcdserverpb::WatchResponse response_;
  bool started_ = false;
  // What is under way. The address of each is the tag of its end in the queue.
  bool starting_ = true;
  bool writing_ = false;
  bool reading_ = false;
  bool finishing_ = false;
  std::optional<absl::Status> finished_;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_ETCD_WATCH_STREAM_H_
