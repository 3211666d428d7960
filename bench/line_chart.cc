#include "bench/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "storage/base/status.h"

namespace kdn::bench {
namespace {

constexpr size_t kColumns = 4;
constexpr double kPlotWidth = 250;
constexpr double kPlotHeight = 170;
constexpr double kCellWidth = kPlotWidth + 70;
constexpr double kCellHeight = kPlotHeight + 75;
constexpr double kHeader = 70;

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

// A round step that divides [0, top] into four to eight parts.
double StepFor(double top) {
  const double raw = top / 5;
  const double magnitude = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * magnitude >= raw) return factor * magnitude;
  }
  return 10 * magnitude;
}

std::string LineStyle(const std::string& color, bool dashed, bool bold) {
  return fmt::format(R"(stroke="{}" stroke-width="{}"{})", color, bold ? 2.6 : 1.4,
                     dashed ? R"( stroke-dasharray="5 3")" : "");
}

}  // namespace

void LineChart::AddSeries(std::string name, std::string color, bool dashed, bool bold) {
  series_.push_back({std::move(name), std::move(color), dashed, bold});
}

void LineChart::AddPanel(std::string title, std::vector<double> x, std::vector<std::vector<double>> values) {
  panels_.push_back({std::move(title), std::move(x), std::move(values)});
}

std::string LineChart::PanelSvg(const Panel& panel, double left, double top) const {
  std::string svg;
  const auto out = std::back_inserter(svg);
  double highest = 1e-9;
  for (const auto& row : panel.values) highest = std::max(highest, *std::max_element(row.begin(), row.end()));
  const double step = StepFor(highest);
  const double y_end = std::ceil(highest / step) * step;
  const auto x_at = [&](double x) {
    return left + kPlotWidth * std::log(x / panel.x.front()) / std::log(panel.x.back() / panel.x.front());
  };
  const auto y_at = [&](double y) { return top + kPlotHeight * (1 - y / y_end); };

  fmt::format_to(out, R"(<text x="{}" y="{}" class="panel">{}</text>)", left, top - 8, Escaped(panel.title));
  for (double y = 0; y <= y_end * 1.0001; y += step) {
    fmt::format_to(out, R"(<path d="M{:.1f} {:.1f}h{}" class="grid"/>)", left, y_at(y), kPlotWidth);
    fmt::format_to(out, R"(<text x="{:.1f}" y="{:.1f}" class="tick" text-anchor="end">{:g}</text>)", left - 6,
                   y_at(y) + 4, y);
  }
  for (const double x : panel.x) {
    fmt::format_to(out, R"(<path d="M{:.1f} {:.1f}v4" class="axis"/>)", x_at(x), top + kPlotHeight);
    fmt::format_to(out, R"(<text x="{:.1f}" y="{:.1f}" class="tick" text-anchor="middle">{:g}</text>)", x_at(x),
                   top + kPlotHeight + 17, x);
  }
  for (size_t s = 0; s < series_.size(); ++s) {
    std::string points;
    for (size_t i = 0; i < panel.x.size(); ++i) {
      fmt::format_to(std::back_inserter(points), "{:.1f},{:.1f} ", x_at(panel.x[i]), y_at(panel.values[s][i]));
    }
    fmt::format_to(out, R"(<polyline points="{}" fill="none" {}/>)", points,
                   LineStyle(series_[s].color, series_[s].dashed, series_[s].bold));
  }
  svg += "\n";
  return svg;
}

std::string LineChart::ToSvg() const {
  const size_t columns = std::min(kColumns, std::max<size_t>(panels_.size(), 1));
  const size_t rows = (panels_.size() + columns - 1) / columns;
  const double width = kCellWidth * static_cast<double>(columns) + 30;
  const double height = kHeader + kCellHeight * static_cast<double>(rows) + 15;
  std::string svg =
      fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}">
<style>text{{font-family:sans-serif;fill:#222}}.title{{font-size:17px;font-weight:bold}}.panel{{font-size:13px;font-weight:bold}}
.tick{{font-size:10px;fill:#555}}.legend{{font-size:12px}}.grid{{stroke:#e4e4e4;fill:none}}.axis{{stroke:#888;fill:none}}</style>
<rect width="{0}" height="{1}" fill="white"/>
<text x="20" y="26" class="title">{2}</text><text x="{3}" y="26" class="legend" text-anchor="end">{4} over {5}</text>
)",
                  width, height, Escaped(title_), width - 20, Escaped(y_label_), Escaped(x_label_));
  const auto out = std::back_inserter(svg);
  double legend = 20;
  for (const Series& s : series_) {
    fmt::format_to(out, R"(<path d="M{} 46h26" fill="none" {}/><text x="{}" y="50" class="legend">{}</text>)", legend,
                   LineStyle(s.color, s.dashed, s.bold), legend + 32, Escaped(s.name));
    legend += 60 + 7.5 * static_cast<double>(s.name.size());
  }
  svg += "\n";
  for (size_t p = 0; p < panels_.size(); ++p) {
    const size_t row = p / columns;
    svg += PanelSvg(panels_[p], 50 + kCellWidth * static_cast<double>(p % columns),
                    kHeader + 22 + kCellHeight * static_cast<double>(row));
  }
  return svg + "</svg>\n";
}

absl::Status LineChart::Write(const std::string& path) const {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  std::ofstream file(path);
  file << ToSvg();
  file.close();
  if (!file) return Unavailable("the chart cannot be written to {}", path);
  return absl::OkStatus();
}

}  // namespace kdn::bench
