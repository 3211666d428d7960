// Fuzz target: ParseFrame against protobuf's own parser, over slices of a size that the input chooses.
#include <cstdio>
#include <cstdlib>

#include "tests/proto/frame_oracle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string disagreement = kdn::wire::DisagreementAbout(bytes, size_t{1} + data[0]);
  if (!disagreement.empty()) {
    std::fprintf(stderr, "%s\n", disagreement.c_str());
    std::abort();
  }
  return 0;
}
