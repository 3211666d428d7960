// Fuzz target: whatever DecodeSpace takes is valid and is the one encoding of its space.
#include "storage/format/kv_space.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const kdn::ByteSpan bytes(data, size);
  const absl::StatusOr<kdn::KvSpace> space = kdn::DecodeSpace(bytes);
  if (!space.ok()) return 0;
  kdn::Require(kdn::ValidateSpace(*space).ok(), "a decoded space is valid");
  const absl::StatusOr<std::string> encoded = kdn::EncodeSpace(*space);
  kdn::Require(encoded.ok() && *encoded == kdn::AsStringView(bytes), "a space has one encoding");
  return 0;
}
