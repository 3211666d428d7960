// Moved to storage/base/worker_pool.h; include that.
#ifndef KDN_KDN_NODE_WORKER_POOL_H_
#define KDN_KDN_NODE_WORKER_POOL_H_

#include "storage/base/worker_pool.h"

#endif  // KDN_KDN_NODE_WORKER_POOL_H_
