// Report: what a command found, as values; printed as text for people or as one JSON object for scripts. All of
// kdnctl's formatting of values is here.
//
//   Report report;
//   report.Add("chunks", "Chunks", Show::kCount, 1200);
//   Table& nodes = report.AddTable("nodes", "Nodes", {{"id", "NODE"}, {"bytes", "BYTES", Show::kBytes}});
//   nodes.Add({"n1", 4096});
//   report.Print(Format::kJson, out);      // {"chunks": 1200, "nodes": [{"id": "n1", "bytes": 4096}]}
//
// JSON keeps values as they are, in base units that the keys name (…_bytes, …_seconds, …_percent); only text rounds.
// Keys are part of the interface: they are added, not changed.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_REPORT_H_
#define KDN_KDN_CLIENT_CTL_REPORT_H_

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace kdn::ctl {

using Json = nlohmann::ordered_json;

enum class Format : uint8_t { kTable, kJson };
// "table", "json"; INVALID_ARGUMENT.
absl::StatusOr<Format> FormatFromName(std::string_view name);

// How a value reads as text. A null value is "-" in any form.
enum class Show : uint8_t {
  kText,
  kCount,    // 1,234
  kBytes,    // 1.2 GiB
  kRate,     // bytes a second: 1.2 GiB/s
  kPercent,  // of 100: 48.1 %
  kSeconds,  // 1.5 ms, 12 s, 3 h 20 min
  kFixed,    // a plain number, three decimals at most
  kId,       // a digest in hex: its first 16 digits
};
std::string ToText(Show show, const Json& value);

struct Column {
  std::string key;    // in JSON
  std::string title;  // in text; empty: not shown there
  Show show = Show::kText;
};

class Table {
 public:
  Table(std::string key, std::string title, std::vector<Column> columns)
      : key_(std::move(key)), title_(std::move(title)), columns_(std::move(columns)) {}

  // One value for each column.
  void Add(std::vector<Json> row);

  const std::string& key() const { return key_; }
  Json ToJson() const;
  void Print(std::ostream& out) const;
  bool empty() const { return rows_.empty(); }

 private:
  std::string key_;
  std::string title_;
  std::vector<Column> columns_;
  std::vector<std::vector<Json>> rows_;
};

class Report {
 public:
  // An empty title: in JSON only.
  void Add(std::string key, std::string title, Show show, Json value);
  // The reference stays valid as long as the report lives.
  Table& AddTable(std::string key, std::string title, std::vector<Column> columns);
  // A line for people, after all else.
  void Note(std::string line) { notes_.push_back(std::move(line)); }

  Json ToJson() const;
  void Print(Format format, std::ostream& out) const;

 private:
  struct Fact {
    std::string key;
    std::string title;
    Show show;
    Json value;
  };
  std::vector<Fact> facts_;
  std::deque<Table> tables_;
  std::vector<std::string> notes_;
};

// What a peer sent, without what would move a terminal's cursor or colour it.
std::string Printable(std::string_view text);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_REPORT_H_
