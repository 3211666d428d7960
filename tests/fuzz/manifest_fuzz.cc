// Fuzz target: whatever DecodeManifest takes is valid and is the one encoding of its manifest.
//
// No fuzzer guesses a 64-bit checksum, so the input is taken as it is and once more with a checksum that fits.
#include <cstring>
#include <vector>

#include "storage/format/manifest.h"
#include "tests/fuzz/require.h"

namespace {

void TryDecode(kdn::ByteSpan bytes) {
  const absl::StatusOr<kdn::Manifest> manifest = kdn::DecodeManifest(bytes);
  if (!manifest.ok()) return;
  kdn::Require(kdn::ValidateManifest(*manifest).ok(), "a decoded manifest is valid");
  const absl::StatusOr<std::string> encoded = kdn::EncodeManifest(*manifest);
  kdn::Require(encoded.ok() && *encoded == kdn::AsStringView(bytes), "a manifest has one encoding");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  TryDecode({data, size});
  std::vector<uint8_t> sealed(data, data + size);
  const uint64_t checksum = kdn::SlabChecksum(sealed);
  sealed.resize(size + sizeof checksum);
  std::memcpy(sealed.data() + size, &checksum, sizeof checksum);
  TryDecode(sealed);
  return 0;
}
