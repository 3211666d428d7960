#include "kdn-client/call_rules.h"

#include "kdn-client/transport.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {

absl::Status CheckTime(absl::Time deadline) {
  if (Clock::Real().Now() < deadline) return absl::OkStatus();
  return DeadlineExceeded("the deadline has passed");
}

absl::Status CheckCount(size_t chunks) {
  if (chunks <= kMaxChunksPerCall) return absl::OkStatus();
  return InvalidArgument("{} chunks in one call; give at most {}", chunks, kMaxChunksPerCall);
}

Miss MissFromCall(const absl::Status& call) {
  Miss miss = MissFromStatus(call);
  switch (call.code()) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInvalidArgument:
      miss.reason = MissReason::kProtocol;
      break;
    default:
      break;
  }
  return miss;
}

}  // namespace kdn
