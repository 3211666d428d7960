#include "kdn-client/ctl/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

std::string CountText(double value) {
  const std::string digits = fmt::format("{:.0f}", std::abs(value));
  std::string text;
  if (value < 0) text.push_back('-');
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

std::string BytesText(double bytes) {
  constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  // 1023.95 KiB would read as 1024.0 KiB.
  while (std::abs(bytes) >= 1023.95 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string SecondsText(double seconds) {
  const double size = std::abs(seconds);
  if (size == 0) return "0 s";
  if (size < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (size < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  if (size < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(seconds);
  if (size < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  if (size < 86400) return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
  return fmt::format("{} d {} h", whole / 86400, whole / 3600 % 24);
}

std::string FixedText(double value) {
  std::string text = fmt::format("{:.3f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

bool IsNumberColumn(Show show) { return show != Show::kText && show != Show::kId; }

// Columns that a terminal needs; UTF-8 continuation bytes take none.
size_t WidthOf(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

void Pad(std::string& line, std::string_view text, size_t width, bool right) {
  const size_t have = WidthOf(text);
  const std::string gap(width > have ? width - have : 0, ' ');
  line += right ? gap : "";
  line += text;
  line += right ? "" : gap;
}

void PrintLine(std::string line, std::ostream& out) {
  line.erase(line.find_last_not_of(' ') + 1);
  out << line << '\n';
}

}  // namespace

absl::StatusOr<Format> FormatFromName(std::string_view name) {
  if (name == "table") return Format::kTable;
  if (name == "json") return Format::kJson;
  return InvalidArgument("--output: '{}' is not table or json", name);
}

std::string Printable(std::string_view text) {
  std::string printable(text);
  std::ranges::replace_if(
      printable, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return printable;
}

std::string ToText(Show show, const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) {
    const std::string text = Printable(value.get<std::string>());
    return show == Show::kId ? text.substr(0, 16) : text;
  }
  if (value.is_array()) {
    std::string joined;
    for (const Json& element : value) joined += (joined.empty() ? "" : ", ") + ToText(show, element);
    return joined.empty() ? "-" : joined;
  }
  if (!value.is_number()) return Printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
  const double number = value.get<double>();
  switch (show) {
    case Show::kText:
    case Show::kId:
      return value.dump();
    case Show::kCount:
      return CountText(number);
    case Show::kBytes:
      return BytesText(number);
    case Show::kRate:
      return BytesText(number) + "/s";
    case Show::kPercent:
      return fmt::format("{:.1f} %", number);
    case Show::kSeconds:
      return SecondsText(number);
    case Show::kFixed:
      return FixedText(number);
  }
  return value.dump();
}

void Table::Add(std::vector<Json> row) {
  row.resize(columns_.size());
  rows_.push_back(std::move(row));
}

Json Table::ToJson() const {
  Json rows = Json::array();
  for (const std::vector<Json>& row : rows_) {
    Json object = Json::object();
    for (size_t i = 0; i < columns_.size(); ++i) object[columns_[i].key] = row[i];
    rows.push_back(std::move(object));
  }
  return rows;
}

void Table::Print(std::ostream& out) const {
  if (!title_.empty()) out << title_ << '\n';
  if (rows_.empty()) {
    out << "  (none)\n";
    return;
  }
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(WidthOf(column.title));
  std::vector<std::vector<std::string>> texts;
  for (const std::vector<Json>& row : rows_) {
    std::vector<std::string>& text = texts.emplace_back();
    for (size_t i = 0; i < columns_.size(); ++i) {
      text.push_back(ToText(columns_[i].show, row[i]));
      widths[i] = std::max(widths[i], WidthOf(text.back()));
    }
  }
  const auto print = [&](const auto& cell) {
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].title.empty()) continue;
      line += "  ";
      Pad(line, cell(i), widths[i], IsNumberColumn(columns_[i].show));
    }
    PrintLine(std::move(line), out);
  };
  print([&](size_t i) { return columns_[i].title; });
  for (const std::vector<std::string>& text : texts) print([&](size_t i) { return text[i]; });
}

void Report::Add(std::string key, std::string title, Show show, Json value) {
  facts_.push_back({std::move(key), std::move(title), show, std::move(value)});
}

Table& Report::AddTable(std::string key, std::string title, std::vector<Column> columns) {
  return tables_.emplace_back(std::move(key), std::move(title), std::move(columns));
}

Json Report::ToJson() const {
  Json object = Json::object();
  for (const Fact& fact : facts_) object[fact.key] = fact.value;
  for (const Table& table : tables_) object[table.key()] = table.ToJson();
  return object;
}

void Report::Print(Format format, std::ostream& out) const {
  if (format == Format::kJson) {
    out << ToJson().dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    return;
  }
  size_t width = 0;
  for (const Fact& fact : facts_) width = std::max(width, WidthOf(fact.title));
  bool any = false;
  for (const Fact& fact : facts_) {
    if (fact.title.empty()) continue;
    std::string line;
    Pad(line, fact.title, width + 2, /*right=*/false);
    PrintLine(line + ToText(fact.show, fact.value), out);
    any = true;
  }
  for (const Table& table : tables_) {
    if (any) out << '\n';
    table.Print(out);
    any = true;
  }
  if (any && !notes_.empty()) out << '\n';
  for (const std::string& note : notes_) out << Printable(note) << '\n';
}

}  // namespace kdn::ctl
