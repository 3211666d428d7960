// ByteTokenizer: a token is a byte. Token 256 begins a sequence (BOS) where the vocabulary has room for it.
//
// Thread-safety: pure functions.
#ifndef KDN_INTEGRATION_ENGINE_TOKENIZER_H_
#define KDN_INTEGRATION_ENGINE_TOKENIZER_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/format/chunk_key.h"

namespace kdn::engine {

inline constexpr Token kBosToken = 256;
inline constexpr uint32_t kByteVocab = 256;

// The bytes of `text`, after BOS when asked for.
std::vector<Token> EncodeText(std::string_view text, bool with_bos = false);

// The bytes that `tokens` stand for; tokens above 255 stand for nothing.
std::string DecodeTokens(std::span<const Token> tokens);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_TOKENIZER_H_
