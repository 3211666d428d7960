#include "kdn-node/cluster/member_options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "placement/topology/topology.h"
#include "storage/base/endpoint.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr size_t kMaxName = 64;
constexpr std::string_view kNameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxName && text.find_first_not_of(kNameCharacters) == std::string_view::npos;
}

absl::Status CheckName(const char* flag, std::string_view text) {
  if (IsName(text)) return absl::OkStatus();
  return InvalidArgument("{}: '{}' is no name; give 1 to {} letters, digits, '.', '_' or '-'", flag, text, kMaxName);
}

// An address that other machines cannot call.
bool IsUnspecified(std::string_view host) { return host.empty() || host == "0.0.0.0" || host == "::"; }

absl::Status CheckAdvertised(const std::string& text) {
  const absl::StatusOr<Endpoint> endpoint = ParseEndpoint(text);
  if (!endpoint.ok()) return Annotate(endpoint.status(), "--advertise");
  if (IsUnspecified(endpoint->host) || endpoint->port == 0) {
    return InvalidArgument("--advertise: {} is no address that others can call; give this machine's own and the port",
                           text);
  }
  return absl::OkStatus();
}

}  // namespace

std::string DefaultNodeId() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "";
  const std::string_view text = name.data();
  return std::string(text.substr(0, std::min(text.find_first_not_of(kNameCharacters), kMaxName)));
}

uint32_t DefaultWeight(uint64_t capacity_bytes) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(capacity_bytes >> 30, 1, kMaxWeight));
}

uint64_t CapacityOf(const TieredStoreOptions& store) {
  uint64_t bytes = store.memory_bytes;
  for (const DiskTierOptions& disk : store.disks) bytes += disk.bytes;
  return bytes;
}

absl::Status CheckMemberOptions(const MemberOptions& options) {
  if (options.placement.empty()) return InvalidArgument("--placement: name one placement daemon at least");
  for (const std::string& address : options.placement) {
    const absl::StatusOr<Endpoint> endpoint = ParseEndpoint(address);
    if (!endpoint.ok()) return Annotate(endpoint.status(), "--placement");
    if (endpoint->port == 0) return InvalidArgument("--placement: {} has no port; give HOST:PORT", address);
  }
  KDN_RETURN_IF_ERROR(CheckName("--cluster", options.cluster));
  KDN_RETURN_IF_ERROR(CheckName("--node-id", options.node_id));
  if (!options.zone.empty()) KDN_RETURN_IF_ERROR(CheckName("--zone", options.zone));
  if (!options.advertise.empty()) KDN_RETURN_IF_ERROR(CheckAdvertised(options.advertise));
  if (options.weight < 1 || options.weight > kMaxWeight) {
    return InvalidArgument("--weight: {} is out of range; give 1 to {}", options.weight, kMaxWeight);
  }
  return absl::OkStatus();
}

}  // namespace kdn
