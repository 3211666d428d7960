#include "storage/base/log_format.h"

#include <fmt/format.h>
#include <spdlog/formatter.h>
#include <spdlog/pattern_formatter.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/time.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v";

std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

// What needs no quotes in a line of text.
bool IsPlain(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f && c != '"' && c != '='; });
}

class JsonFormatter final : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string program) : program_(std::move(program)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& to) override {
    const std::string_view level(spdlog::level::to_string_view(message.level).data(),
                                 spdlog::level::to_string_view(message.level).size());
    const std::string_view text(message.payload.data(), message.payload.size());
    const bool has_fields = std::string_view(message.logger_name.data(), message.logger_name.size()) == kFieldsLogger;
    fmt::format_to(std::back_inserter(to), R"({{"time":"{}","level":"{}","program":"{}",)",
                   absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::FromChrono(message.time), absl::UTCTimeZone()), level,
                   program_);
    if (has_fields) {
      to.append(text);
    } else {
      fmt::format_to(std::back_inserter(to), R"("message":{})", Quoted(text));
    }
    to.append(std::string_view("}\n"));
  }

  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(program_); }

 private:
  const std::string program_;
};

}  // namespace

absl::StatusOr<LogFormat> LogFormatFlag(std::string_view name, const std::string& text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return InvalidArgument("{}: '{}' is not one of text, json", name, text);
}

void LogFields::Begin(std::string_view name) {
  if (format_ == LogFormat::kJson) {
    text_ += fmt::format(R"({}"{}":)", text_.empty() ? "" : ",", name);
  } else {
    text_ += fmt::format("{}{}=", text_.empty() ? "" : " ", name);
  }
}

LogFields& LogFields::Add(std::string_view name, uint64_t value) {
  Begin(name);
  text_ += fmt::format_int(value).str();
  return *this;
}

LogFields& LogFields::Add(std::string_view name, std::string_view value) {
  Begin(name);
  if (format_ == LogFormat::kText && IsPlain(value)) {
    text_ += value;
  } else {
    text_ += Quoted(value);
  }
  return *this;
}

void LogFields::AddCount(std::string_view name, const Count& count) {
  if (!name.empty()) {
    Begin(name);
    if (format_ == LogFormat::kJson) text_ += '{';
  } else {
    text_ += ',';
  }
  text_ += format_ == LogFormat::kJson ? fmt::format(R"("{}":{})", count.name, count.count)
                                       : fmt::format("{}:{}", count.name, count.count);
}

void LogFields::EndCounts() {
  if (format_ == LogFormat::kJson) text_ += '}';
}

std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format, const std::string& program) {
  if (format == LogFormat::kJson) return std::make_unique<JsonFormatter>(program);
  return std::make_unique<spdlog::pattern_formatter>(kTextPattern);
}

}  // namespace kdn
