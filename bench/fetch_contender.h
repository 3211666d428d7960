// FetchContender: fetches a Dataset by a Client into engine memory, checksums verified.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_FETCH_CONTENDER_H_
#define KDN_BENCH_FETCH_CONTENDER_H_

#include <memory>
#include <string>
#include <utility>

#include "bench/contender.h"
#include "bench/network_data.h"
#include "kdn-client/client.h"

namespace kdn::bench {

class FetchContender final : public Contender {
 public:
  // `data` and `destination` must outlive it.
  static absl::StatusOr<std::unique_ptr<FetchContender>> Create(std::string name, std::shared_ptr<Transport> transport,
                                                                pid_t server, const Dataset& data,
                                                                EngineMemory& destination);

  absl::Status All() override { return FetchChunks(*client_, data_.chunks(), {}, destination_); }
  bool has_single() const override { return true; }
  absl::Status One(uint64_t slab) override {
    return FetchChunks(*client_, data_.ChunkOf(slab), data_.LayerOf(slab), destination_);
  }

  // All, once. DATA_LOSS when the destination is not the same as `source` then.
  absl::Status Check(const EngineMemory& source);

  Client& client() { return *client_; }

 private:
  FetchContender(std::string name, pid_t server, std::unique_ptr<Client> client, const Dataset& data,
                 EngineMemory& destination)
      : Contender(std::move(name), server), client_(std::move(client)), data_(data), destination_(destination) {}

  const std::unique_ptr<Client> client_;
  const Dataset& data_;
  EngineMemory& destination_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_FETCH_CONTENDER_H_
