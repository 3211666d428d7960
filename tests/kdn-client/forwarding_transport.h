// ForwardingTransport: passes every call on. Tests change what passes by overriding what they are about.
//
// Thread-safety: as the transport it passes calls on to.
#ifndef KDN_TESTS_KDN_CLIENT_FORWARDING_TRANSPORT_H_
#define KDN_TESTS_KDN_CLIENT_FORWARDING_TRANSPORT_H_

#include <memory>
#include <utility>
#include <vector>

#include "kdn-client/transport.h"

namespace kdn {

class ForwardingTransport : public Transport {
 public:
  explicit ForwardingTransport(std::shared_ptr<Transport> next) : next_(std::move(next)) {}

  absl::StatusOr<std::vector<FoundChunk>> Lookup(const SpaceId& space, std::span<const ChunkKey> keys, Fidelity least,
                                                 absl::Time deadline) override {
    return next_->Lookup(space, keys, least, deadline);
  }
  absl::Status Fetch(const FetchQuery& query, absl::Time deadline, SlabSink& sink) override {
    return next_->Fetch(query, deadline, sink);
  }
  absl::StatusOr<std::vector<absl::Status>> Store(std::span<const Chunk> chunks, Ack ack,
                                                  absl::Time deadline) override {
    return next_->Store(chunks, ack, deadline);
  }
  absl::StatusOr<PrefetchCounts> Prefetch(const SpaceId& space, std::span<const ChunkKey> keys,
                                          absl::Time deadline) override {
    return next_->Prefetch(space, keys, deadline);
  }
  absl::StatusOr<std::vector<absl::Status>> Delete(const SpaceId& space, std::span<const ChunkKey> keys,
                                                   absl::Time deadline) override {
    return next_->Delete(space, keys, deadline);
  }
  absl::StatusOr<Lease> Pin(const SpaceId& space, std::span<const ChunkKey> keys, absl::Duration duration,
                            absl::Time deadline) override {
    return next_->Pin(space, keys, duration, deadline);
  }
  absl::Status Unpin(uint64_t lease, absl::Time deadline) override { return next_->Unpin(lease, deadline); }
  absl::StatusOr<StoreStats> Stats(absl::Time deadline) override { return next_->Stats(deadline); }

 private:
  const std::shared_ptr<Transport> next_;
};

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_FORWARDING_TRANSPORT_H_
