// The threads of this process that decode slabs while others arrive.
//
// Thread-safety: any thread may call.
#ifndef KDN_KDN_CLIENT_DECODE_POOL_H_
#define KDN_KDN_CLIENT_DECODE_POOL_H_

#include <cstddef>
#include <functional>

namespace kdn {

// One less than the processor has, since a receiving thread decodes too; at least 1, at most 8.
size_t DecodeThreads();

// Runs `task` on one of them, soon. They start with the first task and stay until the process ends.
void RunOnDecodeThread(std::function<void()> task);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_DECODE_POOL_H_
