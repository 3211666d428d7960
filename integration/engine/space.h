// SpaceOf: the KV space of a model under session options.
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_SPACE_H_
#define KDN_INTEGRATION_ENGINE_SPACE_H_

#include "integration/engine/model.h"
#include "integration/engine/session.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

// The space in which the KV of sessions with `options` lives.
KvSpace SpaceOf(const Model& model, const SessionOptions& options);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_SPACE_H_
