// Moved to storage/base/endpoint.h; include that.
#ifndef KDN_KDN_NODE_ENDPOINT_H_
#define KDN_KDN_NODE_ENDPOINT_H_

#include "storage/base/endpoint.h"

#endif  // KDN_KDN_NODE_ENDPOINT_H_
