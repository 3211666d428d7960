#include "storage/format/digest.h"

#include <openssl/evp.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "storage/base/status.h"

namespace kdn {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* c) const { EVP_MD_CTX_free(c); }
};

// Without SHA-256 nothing has a name, and no answer could be right: the process cannot go on.
void Require(bool ok) {
  if (ok) return;
  std::fputs("kdn: OpenSSL offers no SHA-256; install or configure its default provider\n", stderr);
  std::abort();
}

// Fetching an algorithm takes locks and string look-ups inside OpenSSL; once is enough for a process.
const EVP_MD* Algorithm() {
  static const EVP_MD* const md = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  Require(md != nullptr);
  return md;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::array<uint8_t, kDigestSize> Sha256(std::initializer_list<ByteSpan> parts) {
  thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  Require(context != nullptr && EVP_DigestInit_ex2(context.get(), Algorithm(), nullptr) == 1);
  for (const ByteSpan part : parts) Require(EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1);
  std::array<uint8_t, kDigestSize> digest;
  Require(EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1);
  return digest;
}

template <typename Tag>
absl::StatusOr<Digest<Tag>> Digest<Tag>::FromBytes(ByteSpan b) {
  if (b.size() != kDigestSize) return InvalidArgument("a digest has {} bytes, not {}", kDigestSize, b.size());
  Digest digest;
  std::copy(b.begin(), b.end(), digest.bytes.begin());
  return digest;
}

template <typename Tag>
absl::StatusOr<Digest<Tag>> Digest<Tag>::FromHex(std::string_view hex) {
  if (hex.size() != 2 * kDigestSize) {
    return InvalidArgument("a digest has {} hexadecimal digits, not {}", 2 * kDigestSize, hex.size());
  }
  Digest digest;
  for (size_t i = 0; i < kDigestSize; ++i) {
    const int high = HexValue(hex[2 * i]);
    const int low = HexValue(hex[2 * i + 1]);
    if (high < 0 || low < 0) return InvalidArgument("a digest is written in hexadecimal; position {} is not", 2 * i);
    digest.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return digest;
}

template <typename Tag>
std::string Digest<Tag>::ToHex() const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * kDigestSize);
  for (const uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

template struct Digest<SpaceTag>;
template struct Digest<ChunkTag>;

}  // namespace kdn
