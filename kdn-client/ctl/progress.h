// Progress: a bar on standard error while a command works; nothing at all where that is no terminal.
//
//   Progress progress(terminal, "verify");
//   progress.Update(done, total, "3.1 GiB");
//   progress.Clear();                          // before anything else is written; the destructor does it too
//
// It is drawn at most ten times a second, so it may be updated after each chunk.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_PROGRESS_H_
#define KDN_KDN_CLIENT_CTL_PROGRESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "kdn-client/ctl/terminal.h"
#include "storage/base/steady_clock.h"

namespace kdn::ctl {

class Progress {
 public:
  Progress(Terminal& terminal, std::string label, const SteadyClock& clock = SteadyClock::Real())
      : terminal_(terminal), label_(std::move(label)), clock_(clock), begun_(clock.Now()) {}
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `total` 0: it is not known.
  void Update(uint64_t done, uint64_t total, const std::string& detail = "");
  void Clear();

 private:
  Terminal& terminal_;
  const std::string label_;
  const SteadyClock& clock_;
  const SteadyClock::Point begun_;
  std::optional<SteadyClock::Point> drawn_;  // nothing stands there unless it is set
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_PROGRESS_H_
