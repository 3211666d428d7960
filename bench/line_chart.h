// LineChart: a figure of several panels, each with the same named lines over one axis, written as SVG.
//
//   LineChart chart("Hit ratio over capacity", "capacity, % of the footprint", "hits, %");
//   chart.AddSeries("lru", "#888888");
//   chart.AddPanel("chat-1", {1, 2, 5}, {{10, 20, 30}});  // one row of values per series
//   KDN_RETURN_IF_ERROR(chart.Write("bench/results/evict.svg"));
//
// The horizontal axis is logarithmic; the vertical one starts at 0 in every panel and ends above its highest value.
//
// Thread-safety: one thread at a time.
#ifndef KDN_BENCH_LINE_CHART_H_
#define KDN_BENCH_LINE_CHART_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kdn::bench {

class LineChart {
 public:
  LineChart(std::string title, std::string x_label, std::string y_label)
      : title_(std::move(title)), x_label_(std::move(x_label)), y_label_(std::move(y_label)) {}

  // `dashed` for lines that are bounds rather than contenders.
  void AddSeries(std::string name, std::string color, bool dashed = false, bool bold = false);
  // values[s][i] is series s at x[i]; x is positive and ascends.
  void AddPanel(std::string title, std::vector<double> x, std::vector<std::vector<double>> values);

  std::string ToSvg() const;
  absl::Status Write(const std::string& path) const;  // UNAVAILABLE names the path

 private:
  struct Series {
    std::string name;
    std::string color;
    bool dashed;
    bool bold;
  };
  struct Panel {
    std::string title;
    std::vector<double> x;
    std::vector<std::vector<double>> values;
  };

  std::string PanelSvg(const Panel& panel, double left, double top) const;

  const std::string title_, x_label_, y_label_;
  std::vector<Series> series_;
  std::vector<Panel> panels_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_LINE_CHART_H_
