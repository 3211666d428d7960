// Fuzz target: topologies from peers, registries and files. Whatever is taken is valid, and encodes to something that
// is taken again as the same.
#include <string>
#include <string_view>

#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"
#include "tests/fuzz/require.h"

namespace {

void CheckRoundTrip(const kdn::Topology& topology) {
  const absl::StatusOr<kdn::TopologyPtr> again = kdn::DecodeTopology(kdn::EncodeTopology(topology));
  kdn::Require(again.ok() && (*again)->parts() == topology.parts(), "a topology survives being encoded");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto topology = kdn::DecodeTopology(bytes); topology.ok()) CheckRoundTrip(**topology);

  const absl::StatusOr<kdn::TopologyPtr> of_file = kdn::ParseStaticTopology(bytes);
  if (of_file.ok()) CheckRoundTrip(**of_file);

  static const kdn::TopologyPtr base =
      kdn::ParseStaticTopology("cluster fuzz\npartitions 4\nnode a 10.0.0.1:1\nnode b 10.0.0.2:1 zone=z\n").value();
  kdn::v1::TopologyUpdate update;
  if (update.ParseFromArray(data, static_cast<int>(size))) {
    const absl::StatusOr<kdn::TopologyPtr> next = kdn::ApplyUpdate(base, update);
    if (next.ok()) CheckRoundTrip(**next);
  }
  return 0;
}
