// InParallel: the parts of one call, several at once.
//
//   InParallel(threads, groups.size(), 16, [&](size_t i) { Ask(groups[i]); });
//
// Thread-safety: may be called from any thread, also within a part.
#ifndef KDN_KDN_CLIENT_CLUSTER_IN_PARALLEL_H_
#define KDN_KDN_CLIENT_CLUSTER_IN_PARALLEL_H_

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "kdn-client/async/task_threads.h"

namespace kdn {

// Calls `part(i)` for each i below `parts`, at most `most` at once, one of them on this thread. Returns once all have
// returned. `part` must not throw.
void InParallel(TaskThreads& threads, size_t parts, size_t most, absl::FunctionRef<void(size_t)> part);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_IN_PARALLEL_H_
