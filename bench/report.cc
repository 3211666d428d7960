#include "bench/report.h"

#include <fmt/core.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

namespace kdn::bench {
namespace {

using nlohmann::json;

std::string FirstLineOf(const std::string& command) {
  std::string line;
  if (FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r")) {
    char buffer[256];
    if (std::fgets(buffer, sizeof buffer, pipe) != nullptr) line = buffer;
    pclose(pipe);
  }
  while (!line.empty() && line.back() == '\n') line.pop_back();
  return line;
}

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

json Machine() {
  utsname name{};
  uname(&name);
  double memory_gib = 0;
  std::ifstream file("/proc/meminfo");
  for (std::string key, unit; file >> key;) {
    double kib = 0;
    file >> kib;
    std::getline(file, unit);
    if (key == "MemTotal:") memory_gib = kib / (1 << 20);
  }
  return {{"cpu", CpuModel()},
          {"cores", std::thread::hardware_concurrency()},
          {"memory_gib", std::round(memory_gib * 10) / 10},
          {"kernel", name.release}};
}

std::string Now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

std::string CellText(const json& value) {
  if (value.is_number_float()) return fmt::format("{:.4g}", value.get<double>());
  if (value.is_string()) return value.get<std::string>();
  return value.dump();
}

// Rows with the same keys form one table; a change of keys starts the next.
void PrintRows(const std::vector<json>& rows) {
  for (size_t begin = 0; begin < rows.size();) {
    std::vector<std::string> columns;
    for (const auto& item : rows[begin].items()) columns.push_back(item.key());
    size_t end = begin;
    const auto same_columns = [&](const json& row) {
      return row.size() == columns.size() &&
             std::all_of(columns.begin(), columns.end(), [&](const std::string& c) { return row.contains(c); });
    };
    std::vector<size_t> widths;
    for (const std::string& column : columns) widths.push_back(column.size());
    for (; end < rows.size() && same_columns(rows[end]); ++end) {
      for (size_t c = 0; c < columns.size(); ++c)
        widths[c] = std::max(widths[c], CellText(rows[end][columns[c]]).size());
    }
    for (size_t c = 0; c < columns.size(); ++c) fmt::print("{:>{}}  ", columns[c], widths[c]);
    fmt::print("\n");
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < columns.size(); ++c) fmt::print("{:>{}}  ", CellText(rows[r][columns[c]]), widths[c]);
      fmt::print("\n");
    }
    fmt::print("\n");
    begin = end;
  }
}

}  // namespace

std::string ResultsDirectory() {
  const char* directory = std::getenv("KDN_BENCH_RESULTS");
  return directory != nullptr ? directory : "bench/results";
}

int Report::Finish() const {
  json goals = json::array();
  for (const Goal& goal : goals_) {
    goals.push_back({{"name", goal.name},
                     {"value", goal.value},
                     {"unit", goal.unit},
                     {"goal", goal.goal},
                     {"better", goal.better == Better::kHigher ? "higher" : "lower"},
                     {"met", goal.Met()}});
  }
  PrintRows(rows_);
  fmt::print("{:<64} {:>12} {:>12}  {}\n", "goal", "value", "wanted", "met");
  for (const Goal& goal : goals_) {
    fmt::print("{:<64} {:>12.4g} {:>2} {:>9.4g}  {:<3}  {}\n", goal.name, goal.value,
               goal.better == Better::kHigher ? ">=" : "<=", goal.goal, goal.Met() ? "yes" : "NO", goal.unit);
  }

  json result = {{"bench", name_}, {"commit", FirstLineOf("git describe --always --dirty")},
                 {"date", Now()},  {"machine", Machine()},
                 {"goals", goals}, {"rows", rows_}};
  if (!facts_.empty()) result["facts"] = facts_;
  const std::filesystem::path path = std::filesystem::path(ResultsDirectory()) / (name_ + ".json");
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::ofstream file(path);
  file << result.dump(1) << "\n";
  file.close();
  if (!file) {
    fmt::print(stderr, "bench {}: cannot write {}\n", name_, path.string());
    return 1;
  }
  fmt::print("\nwritten: {}\n", path.string());
  return 0;
}

double Quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  const size_t rank = std::min(samples.size() - 1, static_cast<size_t>(q * static_cast<double>(samples.size())));
  std::nth_element(samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(rank), samples.end());
  return samples[rank];
}

}  // namespace kdn::bench
