// What the node tells an operator of its quotas, and how it changes them.
//
// Thread-safety: all functions may be called from any thread.
#ifndef KDN_KDN_NODE_ADMIN_QUOTA_ANSWERS_H_
#define KDN_KDN_NODE_ADMIN_QUOTA_ANSWERS_H_

#include <cstddef>

#include "absl/status/status.h"
#include "kdn-node/admin/quota_book.h"
#include "kdn/v1/admin.pb.h"
#include "storage/tiered_store.h"

namespace kdn {

// The default, and those of single spaces as far as there is room for them.
void AddQuotas(const QuotaBook& quotas, v1::InspectResponse& response);

// Which quota each space of a list has; those that have one of their own and hold nothing come at the end, while the
// list has at most `most` spaces.
void AddQuotas(const QuotaBook& quotas, TieredStore& store, size_t most, v1::ListSpacesResponse& response);

// INVALID_ARGUMENT: not either a space or all of them; otherwise QuotaBook::Set's and TieredStore::SetQuotas' errors.
absl::Status ChangeQuota(QuotaBook& quotas, TieredStore& store, const v1::SetQuotaRequest& request,
                         v1::SetQuotaResponse& response);

}  // namespace kdn

#endif  // KDN_KDN_NODE_ADMIN_QUOTA_ANSWERS_H_
