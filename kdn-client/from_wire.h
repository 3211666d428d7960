// Values that came from a peer, in our own types.
//
// Thread-safety: pure functions.
#ifndef KDN_KDN_CLIENT_FROM_WIRE_H_
#define KDN_KDN_CLIENT_FROM_WIRE_H_

#include <string>

#include "absl/status/status.h"
#include "kdn/v1/node.pb.h"
#include "storage/chunk.h"

namespace kdn {

// A reason and a sentence: an unknown number is kProtocol, and the sentence is cut.
Miss MissFromWire(int reason, const std::string& detail);
// kNone for a number that is not known.
TierKind TierFromWire(int tier);
// UNKNOWN for a code that is not one.
absl::Status StatusFromWire(const v1::ChunkStatus& status);

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_FROM_WIRE_H_
