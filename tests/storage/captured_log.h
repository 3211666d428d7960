// CapturedLog: a request log whose lines a test reads back as JSON.
//
//   CapturedLog log({.all = true}, "n1");
//   options.request_log = log.requests();
//   EXPECT_EQ(log.Lines()[0]["call"], "fetch");
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_TESTS_STORAGE_CAPTURED_LOG_H_
#define KDN_TESTS_STORAGE_CAPTURED_LOG_H_

#include <gtest/gtest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "storage/base/log_format.h"
#include "storage/base/request_log.h"

namespace kdn {

class CapturedLog {
 public:
  CapturedLog(const RequestFilter& filter, const std::string& daemon, LogFormat format = LogFormat::kJson)
      : sink_(std::make_shared<Sink>()) {
    sink_->set_formatter(MakeLogFormatter(format, "test"));
    requests_ = std::make_shared<const RequestLog>(filter, format, daemon, Logger(kFieldsLogger));
  }

  const std::shared_ptr<const RequestLog>& requests() const { return requests_; }

  // One that writes to the same place.
  std::shared_ptr<spdlog::logger> Logger(const std::string& name) const {
    auto logger = std::make_shared<spdlog::logger>(name, sink_);
    logger->set_level(spdlog::level::trace);
    return logger;
  }

  std::vector<std::string> Texts() const { return sink_->Lines(); }

  // All lines so far; each has to be one JSON object.
  std::vector<nlohmann::json> Lines() const {
    std::vector<nlohmann::json> lines;
    for (const std::string& text : Texts()) {
      lines.push_back(nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false));
      EXPECT_TRUE(lines.back().is_object()) << text;
    }
    return lines;
  }

 private:
  class Sink final : public spdlog::sinks::base_sink<std::mutex> {
   public:
    std::vector<std::string> Lines() {
      const std::lock_guard lock(mutex_);
      return lines_;
    }

   private:
    void sink_it_(const spdlog::details::log_msg& message) override {
      spdlog::memory_buf_t line;
      formatter_->format(message, line);
      lines_.emplace_back(line.data(), line.size());
    }
    void flush_() override {}

    std::vector<std::string> lines_;
  };

  const std::shared_ptr<Sink> sink_;
  std::shared_ptr<const RequestLog> requests_;
};

}  // namespace kdn

#endif  // KDN_TESTS_STORAGE_CAPTURED_LOG_H_
