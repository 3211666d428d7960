// Report: what every benchmark ends with. It prints the goals as a table and writes bench/results/NAME.json:
// {"bench", "commit", "date", "machine", "goals": [{name, value, unit, goal, better, met}], "rows": [...]}.
//
//   bench::Report report("codec");
//   report.AddRow({{"codec", "zstd"}, {"decode_gbps", 2.4}});
//   report.AddGoal({.name = "decode", .value = 2.4, .unit = "GB/s", .goal = 2.0, .better = bench::Better::kHigher});
//   return report.Finish();
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_REPORT_H_
#define KDN_BENCH_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace kdn::bench {

enum class Better { kHigher, kLower };

struct Goal {
  std::string name;
  double value = 0;
  std::string unit;
  double goal = 0;
  Better better = Better::kHigher;

  bool Met() const { return better == Better::kHigher ? value >= goal : value <= goal; }
};

class Report {
 public:
  explicit Report(std::string name) : name_(std::move(name)) {}

  void AddGoal(Goal goal) { goals_.push_back(std::move(goal)); }
  // One measured case: a flat JSON object.
  void AddRow(nlohmann::json row) { rows_.push_back(std::move(row)); }
  // A fact about the whole run (model, file, settings), kept beside the rows.
  void SetFact(const std::string& key, nlohmann::json value) { facts_[key] = std::move(value); }

  // Prints rows and goals, writes the file to $KDN_BENCH_RESULTS (default bench/results), and returns an exit code: 0
  // once measured, whether or not goals are met.
  int Finish() const;

 private:
  std::string name_;
  std::vector<Goal> goals_;
  std::vector<nlohmann::json> rows_;
  nlohmann::json facts_ = nlohmann::json::object();
};

// Where results are written: $KDN_BENCH_RESULTS, or bench/results.
std::string ResultsDirectory();

// Value at quantile q in [0, 1] of `samples` (copied and sorted); 0 when empty.
double Quantile(std::vector<double> samples, double q);

}  // namespace kdn::bench

#endif  // KDN_BENCH_REPORT_H_
