#include "bench/fetch_contender.h"

#include "storage/base/status.h"

namespace kdn::bench {

absl::StatusOr<std::unique_ptr<FetchContender>> FetchContender::Create(std::string name,
                                                                       std::shared_ptr<Transport> transport,
                                                                       pid_t server, const Dataset& data,
                                                                       EngineMemory& destination) {
  KDN_ASSIGN_OR_RETURN(std::unique_ptr<Client> client, Client::Create(data.space(), std::move(transport)));
  return std::unique_ptr<FetchContender>(
      new FetchContender(std::move(name), server, std::move(client), data, destination));
}

absl::Status FetchContender::Check(const EngineMemory& source) {
  destination_.FillWithZeros();
  KDN_RETURN_IF_ERROR(All());
  if (destination_ == source) return absl::OkStatus();
  return DataLoss("{}: what was fetched is not what was stored", name());
}

}  // namespace kdn::bench
