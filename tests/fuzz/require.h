// Require: what a fuzz target claims. A claim that fails stops the fuzzer and keeps the input.
#ifndef KDN_TESTS_FUZZ_REQUIRE_H_
#define KDN_TESTS_FUZZ_REQUIRE_H_

#include <cstdio>
#include <cstdlib>

namespace kdn {

inline void Require(bool claim, const char* what) {
  if (claim) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::abort();
}

}  // namespace kdn

#endif  // KDN_TESTS_FUZZ_REQUIRE_H_
