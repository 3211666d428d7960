// kdnctl events: follows what changes in a cluster.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <utility>

#include "kdn-client/ctl/commands/declare.h"
#include "kdn-client/ctl/topology_events.h"
#include "kdn/v1/placement.pb.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

class Following {
 public:
  Following(Context& context, uint64_t most) : context_(context), most_(most) {}

  // One watch, until it breaks or enough events have come.
  absl::Status Watch(PlacementChannel& placement) {
    v1::WatchTopologyRequest request;
    if (have_ != nullptr) {
      request.set_have_epoch(have_->epoch());
      request.set_have_cluster_id(have_->parts().cluster_id);
    }
    absl::Status bad;
    absl::Status ended = placement.WatchTopology(request, [&](const v1::TopologyUpdate& update) {
      absl::StatusOr<TopologyPtr> next = ApplyUpdate(have_, update);
      if (!next.ok()) {
        bad = next.status();
        return false;
      }
      if (*next == have_) return true;
      for (const ClusterEvent& event : EventsBetween(have_.get(), **next)) Print(event);
      have_ = *std::move(next);
      heard_ = true;
      return !Enough();
    });
    return bad.ok() ? ended : bad;
  }

  bool Enough() const { return most_ > 0 && printed_ >= most_; }
  // Whether anything came since the last question.
  bool Heard() { return std::exchange(heard_, false); }

 private:
  void Print(const ClusterEvent& event) {
    if (Enough()) return;
    ++printed_;
    std::ostream& out = context_.terminal().out;
    const std::string time = absl::FormatTime(absl::RFC3339_sec, RealNow(), absl::UTCTimeZone());
    if (context_.format() == Format::kJson) {
      const Json line = {{"time", time},
                         {"epoch", event.epoch},
                         {"kind", event.kind},
                         {"subject", event.subject},
                         {"text", event.text}};
      out << line.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
    } else {
      out << Printable(fmt::format("{}  epoch {:<6} {:<14} {}{}{}", time, event.epoch, event.kind, event.subject,
                                   event.subject.empty() ? "" : " ", event.text))
          << std::endl;
    }
  }

  Context& context_;
  const uint64_t most_;
  TopologyPtr have_;
  uint64_t printed_ = 0;
  bool heard_ = false;
};

}  // namespace

Runner DeclareEvents(CLI::App& app) {
  auto count = std::make_shared<uint64_t>(0);
  app.add_option("--count", *count, "End after so many events; 0: go on until interrupted")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  return [count](Context& context) -> absl::StatusOr<ExitCode> {
    KDN_ASSIGN_OR_RETURN(Fleet* const fleet, context.OpenCluster());
    Following following(context, *count);
    Backoff backoff(absl::Milliseconds(100), absl::Seconds(5), std::random_device()());
    while (true) {
      const absl::Status ended = following.Watch(fleet->placement());
      if (following.Enough()) return ExitCode::kDone;
      if (!ended.ok() && !absl::IsUnavailable(ended)) return ended;
      if (following.Heard()) backoff.Reset();
      context.Say("the watch broke off, trying again: " + MessageOf(ended));
      std::this_thread::sleep_for(absl::ToChronoNanoseconds(backoff.Next()));
    }
  };
}

}  // namespace kdn::ctl
