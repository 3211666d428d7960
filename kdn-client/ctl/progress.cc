#include "kdn-client/ctl/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "kdn-client/ctl/report.h"

namespace kdn::ctl {
namespace {

constexpr std::chrono::milliseconds kBetweenDrawings(100);
constexpr size_t kBarWidth = 30;
constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

void Progress::Update(uint64_t done, uint64_t total, const std::string& detail) {
  if (!terminal_.err_is_terminal) return;
  const SteadyClock::Point now = clock_.Now();
  if (drawn_.has_value() && now - *drawn_ < kBetweenDrawings && done != total) return;
  drawn_ = now;
  std::string line = kEraseLine + label_;
  if (total > 0) {
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const auto full = static_cast<size_t>(part * kBarWidth);
    line += fmt::format(" [{}{}] {:3.0f} %  {} of {}", std::string(full, '#'), std::string(kBarWidth - full, '.'),
                        100 * part, ToText(Show::kCount, done), ToText(Show::kCount, total));
    const double passed = std::chrono::duration<double>(now - begun_).count();
    if (part > 0 && part < 1 && passed > 1) {
      line += fmt::format("  {} left", ToText(Show::kSeconds, passed / part - passed));
    }
  } else {
    line += fmt::format(" {}", ToText(Show::kCount, done));
  }
  if (!detail.empty()) line += "  " + Printable(detail);
  terminal_.err << line << std::flush;
}

void Progress::Clear() {
  if (!drawn_.has_value()) return;
  terminal_.err << kEraseLine << std::flush;
  drawn_.reset();
}

}  // namespace kdn::ctl
