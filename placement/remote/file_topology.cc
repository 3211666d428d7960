#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <optional>
#include <thread>
#include <utility>

#include "placement/remote/held_topology.h"
#include "placement/remote/topology_source.h"
#include "placement/topology/topology_change.h"
#include "placement/topology/topology_wire.h"
#include "storage/base/small_file.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr absl::Duration kLookEvery = absl::Seconds(1);

// What tells one content of a file from the next, without reading it.
struct FileMark {
  ino_t inode = 0;
  off_t size = 0;
  int64_t seconds = 0;
  int64_t nanos = 0;
  friend bool operator==(const FileMark&, const FileMark&) = default;
};

std::optional<FileMark> MarkOf(const std::string& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return std::nullopt;
  return FileMark{
      .inode = found.st_ino, .size = found.st_size, .seconds = found.st_mtim.tv_sec, .nanos = found.st_mtim.tv_nsec};
}

absl::StatusOr<TopologyPtr> ReadStatic(const std::string& path) {
  KDN_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxTopologyBytes));
  absl::StatusOr<TopologyPtr> topology = ParseStaticTopology(text);
  if (!topology.ok()) return Annotate(topology.status(), path);
  return topology;
}

class FileTopologySource final : public TopologySource {
 public:
  FileTopologySource(std::string path, std::optional<FileMark> mark, TopologyPtr topology)
      : path_(std::move(path)), mark_(mark) {
    held_.Set(std::move(topology));
    thread_ = std::thread([this] {
      while (pause_.For(kLookEvery)) Look();
    });
  }
  ~FileTopologySource() override {
    pause_.Stop();
    held_.Stop();
    thread_.join();
  }
  FileTopologySource(const FileTopologySource&) = delete;
  FileTopologySource& operator=(const FileTopologySource&) = delete;

  TopologyPtr Current() const override { return held_.Current(); }
  TopologyPtr AwaitNewer(Epoch than, absl::Time deadline) override { return held_.AwaitNewer(than, deadline); }
  void Suspect() override { pause_.Wake(); }
  absl::Status Health() const override { return held_.Health(); }

 private:
  void Look() {
    // Marked before it is read: what is written meanwhile is found the next time.
    const std::optional<FileMark> mark = MarkOf(path_);
    if (mark.has_value() && mark == mark_) return;
    mark_ = mark;
    const absl::Status taken = Take();
    if (held_.SetHealth(taken) && !taken.ok()) {
      spdlog::error("topology: {}; epoch {} stays", MessageOf(taken), held_.Current()->epoch());
    }
  }

  absl::Status Take() {
    KDN_ASSIGN_OR_RETURN(TopologyPtr next, ReadStatic(path_));
    const TopologyPtr have = held_.Current();
    KDN_RETURN_IF_ERROR(Annotate(CheckFollows(*have, *next), path_));
    if (next->epoch() == have->epoch()) return absl::OkStatus();
    spdlog::info("topology: epoch {} from {}", next->epoch(), path_);
    held_.Set(std::move(next));
    return absl::OkStatus();
  }

  const std::string path_;
  std::optional<FileMark> mark_;  // of what was read last; the thread's own
  HeldTopology held_;
  Pause pause_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<TopologySource>> TopologyFromFile(const std::string& path) {
  const std::optional<FileMark> mark = MarkOf(path);
  KDN_ASSIGN_OR_RETURN(TopologyPtr topology, ReadStatic(path));
  return std::make_shared<FileTopologySource>(path, mark, std::move(topology));
}

}  // namespace kdn
