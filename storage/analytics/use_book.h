// UseBook: what engines have reported of the spaces that a recorder counts, and the prefill time saved by it.
//
//   UseBook book(operator_speed, steady, clock);
//   book.Add(space, report, delivered_tokens);     // a report came
//   book.Tell(delivered_tokens, out);                  // out.space says which
//
// How fast a space is computed is what its engines measured, reports of the last minutes counting most; where none has
// reported, the operator's word. Tokens are priced by the speed that is known when they are delivered, or as soon as
// one is known: what was saved never becomes less when an engine becomes faster.
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_STORAGE_ANALYTICS_USE_BOOK_H_
#define KDN_STORAGE_ANALYTICS_USE_BOOK_H_

#include <cstddef>

#include "absl/container/flat_hash_map.h"
#include "storage/analytics/snapshot.h"
#include "storage/analytics/use_report.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

class UseBook {
 public:
  // Of measured speeds: after so long a report counts half.
  static constexpr absl::Duration kHalfLife = absl::Minutes(10);

  // `operator_speed`: tokens a second; 0: not known. The clocks outlive this.
  UseBook(double operator_speed, const SteadyClock& steady, const Clock& clock)
      : operator_speed_(operator_speed), steady_(steady), clock_(clock) {}

  // `report` passed CheckUseReport. `counted_as`: its space, or zero for all that are not counted apart, of which no
  // names are kept. `delivered_tokens`: of that space, by now.
  void Add(const SpaceId& counted_as, const UseReport& report, double delivered_tokens);

  // Writes what is known of out.space.
  void Tell(double delivered_tokens, SpaceAnalytics& out);

  // An entry for each space that was reported of.
  size_t MemoryBytes() const;
  static size_t MostMemoryBytes(size_t spaces);

 private:
  struct Use {
    SpaceDescription description = {};
    BlendCounts blend = {};
    // Measured, decayed to `measured_at`.
    double tokens = 0;
    double seconds = 0;
    SteadyClock::Point measured_at = {};
    double priced_tokens = 0;  // delivered, and among `saved_seconds`
    double saved_seconds = 0;
  };

  double SpeedOf(const Use& use) const;  // 0: not known
  void Price(double delivered_tokens, Use& use) const;
  void Decay(SteadyClock::Point now, Use& use) const;

  const double operator_speed_;
  const SteadyClock& steady_;
  const Clock& clock_;
  mutable Mutex mu_;
  absl::flat_hash_map<SpaceId, Use> uses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_STORAGE_ANALYTICS_USE_BOOK_H_
