#include "bench/link_codecs.h"

#include <fmt/core.h>

#include <memory>
#include <vector>

#include "bench/contender.h"
#include "bench/fetch_contender.h"
#include "bench/network_data.h"
#include "bench/network_peers.h"
#include "bench/node_process.h"
#include "kdn-client/transport.h"
#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr uint64_t kSlabBytes = uint64_t{1} << 20;
constexpr uint64_t kGbit = 1'000'000'000;

struct Link {
  const char* name;
  uint64_t bits_per_second;
  uint64_t bytes;  // raw, that one round fetches
};
constexpr Link kLinks[] = {{"1 Gbit/s", kGbit, uint64_t{64} << 20}, {"10 Gbit/s", 10 * kGbit, uint64_t{256} << 20}};

// More than this share of a link's rate cannot have come over it.
constexpr double kTooFast = 1.1;

nlohmann::json Row(const Link& link, const char* what, double gbps, double encoded_share) {
  const double rate = static_cast<double>(link.bits_per_second) / 8e9;
  return {{"link", link.name},
          {"what", what},
          {"gbps", gbps},
          {"smaller", 1 / encoded_share},
          {"share_of_link", gbps * encoded_share / rate}};
}

absl::Status MeasureLink(const Link& link, const LinkSettings& settings, Report& report) {
  KDN_ASSIGN_OR_RETURN(const std::unique_ptr<SlowLink> slow, SlowLink::Start(settings.emulator, link.bits_per_second));
  report.SetFact("link_emulator", slow->Description());
  KDN_ASSIGN_OR_RETURN(const NodeProcess node, NodeProcess::Start(settings.node, slow->far_end()));
  KDN_ASSIGN_OR_RETURN(const Iperf3Peer iperf3, Iperf3Peer::Start(slow->far_end()));
  KDN_ASSIGN_OR_RETURN(const Endpoint node_address, slow->Reach(node.endpoint()));
  KDN_ASSIGN_OR_RETURN(const Endpoint iperf3_address, slow->Reach(iperf3.endpoint()));

  KDN_ASSIGN_OR_RETURN(const Dataset raw_data, Dataset::Create("raw", kSlabBytes, link.bytes));
  KDN_ASSIGN_OR_RETURN(const Dataset zstd_data, Dataset::Create("zstd", kSlabBytes, link.bytes));
  EngineMemory source(raw_data);
  source.FillWithNormalValues();
  EngineMemory destination(raw_data);
  const std::shared_ptr<Transport> transport =
      MakeRemoteTransport(node_address.ToString(), {.bulk = true, .shared_memory = false});
  KDN_ASSIGN_OR_RETURN(const auto raw, FetchContender::Create("raw", transport, node.id(), raw_data, destination));
  KDN_ASSIGN_OR_RETURN(const auto zstd, FetchContender::Create("zstd", transport, node.id(), zstd_data, destination));
  KDN_RETURN_IF_ERROR(StoreAll(raw->client(), raw_data, source, "raw").status());
  KDN_ASSIGN_OR_RETURN(const uint64_t encoded, StoreAll(zstd->client(), zstd_data, source, "zstd"));
  KDN_RETURN_IF_ERROR(raw->Check(source));
  KDN_RETURN_IF_ERROR(zstd->Check(source));

  const std::vector<Contender*> contenders = {raw.get(), zstd.get()};
  std::vector<double> iperf3_gbps;
  KDN_RETURN_IF_ERROR(RunRounds(contenders, raw_data, settings.rounds, /*calls=*/0, [&]() -> absl::Status {
    KDN_ASSIGN_OR_RETURN(const double gbps, iperf3.Receive(iperf3_address, link.bits_per_second / 16));
    iperf3_gbps.push_back(gbps);
    return absl::OkStatus();
  }));

  const double encoded_share = static_cast<double>(encoded) / static_cast<double>(zstd_data.bytes());
  const nlohmann::json stream_row = Row(link, "iperf3", Quantile(iperf3_gbps, 0.5), 1);
  const nlohmann::json raw_row = Row(link, "raw", raw->Gbps(), 1);
  report.AddRow(stream_row);
  report.AddRow(raw_row);
  report.AddRow(Row(link, "zstd", zstd->Gbps(), encoded_share));
  for (const nlohmann::json& row : {stream_row, raw_row}) {
    if (const double share = row["share_of_link"].get<double>(); share > kTooFast) {
      return Internal("{} got {:.2f} times the rate of a link of {}", row["what"].get<std::string>(), share, link.name);
    }
  }
  report.AddGoal({.name = fmt::format("rate of the emulated link, iperf3 ÷ {}", link.name),
                  .value = stream_row["share_of_link"].get<double>(),
                  .unit = "×",
                  .goal = 0.9,
                  .better = Better::kHigher});
  report.AddGoal({.name = fmt::format("fetch by zstd ÷ raw over {}", link.name),
                  .value = zstd->Gbps() / raw->Gbps(),
                  .unit = "×",
                  .goal = 1.3,
                  .better = Better::kHigher});
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureLinks(const LinkSettings& settings, Report& report) {
  for (const Link& link : kLinks) {
    if (const absl::Status status = MeasureLink(link, settings, report); !status.ok()) {
      return Annotate(status, link.name);
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::bench
