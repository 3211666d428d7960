#include "storage/base/steady_clock.h"

namespace kdn {
namespace {

class RealSteadyClock final : public SteadyClock {
 public:
  Point Now() const override { return std::chrono::steady_clock::now(); }
};

}  // namespace

const SteadyClock& SteadyClock::Real() {
  static const RealSteadyClock clock;
  return clock;
}

}  // namespace kdn
