// What a status that must be INVALID_ARGUMENT says.
#ifndef KDN_TESTS_KDN_CLIENT_BLEND_ERROR_OF_H_
#define KDN_TESTS_KDN_CLIENT_BLEND_ERROR_OF_H_

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace kdn {

inline std::string ErrorOf(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_BLEND_ERROR_OF_H_
