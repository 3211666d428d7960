// How the lines of a daemon's log look: text for people, or JSON, one object a line, for whatever collects logs.
//
//   spdlog::sink->set_formatter(MakeLogFormatter(LogFormat::kJson, "kdn-node"));
//   {"time":"2026-01-02T03:04:05.678901Z","level":"info","program":"kdn-node","message":"stopped"}
//
//   LogFields fields(LogFormat::kJson);                        // a line of named values
//   fields.Add("call", "fetch").Add("bytes", 4096);
//   logger->info("{}", fields.text());                         // a logger of the name kFieldsLogger
//   {"time":…,"level":"info","program":"kdn-node","call":"fetch","bytes":4096}
//
// As text the same is `call=fetch bytes=4096`. JSON lines are valid JSON whatever a value contains: bytes that are not
// UTF-8 become U+FFFD.
//
// Thread-safety: free functions; LogFields is for one thread at a time.
#ifndef KDN_STORAGE_BASE_LOG_FORMAT_H_
#define KDN_STORAGE_BASE_LOG_FORMAT_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace spdlog {
class formatter;
}

namespace kdn {

enum class LogFormat : uint8_t { kText, kJson };

// "text" or "json"; INVALID_ARGUMENT naming the flag `name`.
absl::StatusOr<LogFormat> LogFormatFlag(std::string_view name, const std::string& text);

// The messages of a logger of this name are fields already.
inline constexpr char kFieldsLogger[] = "fields";

class LogFields {
 public:
  explicit LogFields(LogFormat format) : format_(format) {}

  // `name` is a word of ASCII letters and underscores.
  LogFields& Add(std::string_view name, uint64_t value);
  LogFields& Add(std::string_view name, std::string_view value);

  // Several numbers under one name, those of zero left out; nothing when all are.
  struct Count {
    std::string_view name;
    uint64_t count = 0;
  };
  template <typename Counts>
  LogFields& AddCounts(std::string_view name, const Counts& counts) {
    bool any = false;
    for (const Count& count : counts) {
      if (count.count == 0) continue;
      AddCount(any ? std::string_view() : name, count);
      any = true;
    }
    if (any) EndCounts();
    return *this;
  }

  const std::string& text() const { return text_; }

 private:
  void Begin(std::string_view name);
  // `name` is empty but for the first.
  void AddCount(std::string_view name, const Count& count);
  void EndCounts();

  const LogFormat format_;
  std::string text_;
};

// `program` is a word. Text lines have no program: they go where that is known.
std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format, const std::string& program);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_LOG_FORMAT_H_
