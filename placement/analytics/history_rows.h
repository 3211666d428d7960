// HistoryRows: the rows of a history, in a RocksDB of its own on a disk, or in memory.
//
//   KDN_ASSIGN_OR_RETURN(std::unique_ptr<HistoryRows> rows, HistoryRows::Open("/var/lib/kdn-placement/history"));
//   KDN_RETURN_IF_ERROR(rows->Write({.puts = {{key, value}}}));
//
// A write is there whole or not at all, also after a kill. It is not synced: what a loss of power takes is the last
// moments, and whole ones.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_ANALYTICS_HISTORY_ROWS_H_
#define KDN_PLACEMENT_ANALYTICS_HISTORY_ROWS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn {

class HistoryRows {
 public:
  struct Changes {
    std::vector<std::pair<std::string, std::string>> puts = {};
    std::vector<std::string> deletes = {};
    std::vector<std::pair<std::string, std::string>> erase = {};  // from the first key up to, without, the second
  };

  // At `path`, made when absent; in memory when it is empty. FAILED_PRECONDITION: it is something else, of another
  // format, or open already. DATA_LOSS: it is damaged. UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<HistoryRows>> Open(const std::string& path);
  virtual ~HistoryRows() = default;

  virtual absl::StatusOr<std::optional<std::string>> Get(const std::string& key) = 0;
  virtual absl::Status Write(const Changes& changes) = 0;
  // Rows from `first` up to, without, `end`, by key.
  virtual absl::Status Visit(const std::string& first, const std::string& end,
                             absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) = 0;
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_ANALYTICS_HISTORY_ROWS_H_
