// ThreadProcessorTime: how long the calling thread has run on a processor, since it began.
#ifndef KDN_KDN_CLIENT_PROCESSOR_TIME_H_
#define KDN_KDN_CLIENT_PROCESSOR_TIME_H_

#include <ctime>

#include "absl/time/time.h"

namespace kdn {

inline absl::Duration ThreadProcessorTime() {
  timespec now{};
  return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0 ? absl::DurationFromTimespec(now) : absl::ZeroDuration();
}

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_PROCESSOR_TIME_H_
