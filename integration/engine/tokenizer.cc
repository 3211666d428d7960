#include "integration/engine/tokenizer.h"

namespace kdn::engine {

std::vector<Token> EncodeText(std::string_view text, bool with_bos) {
  std::vector<Token> tokens;
  tokens.reserve(text.size() + 1);
  if (with_bos) tokens.push_back(kBosToken);
  for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
  return tokens;
}

std::string DecodeTokens(std::span<const Token> tokens) {
  std::string text;
  text.reserve(tokens.size());
  for (const Token token : tokens) {
    if (token < kByteVocab) text.push_back(static_cast<char>(token));
  }
  return text;
}

}  // namespace kdn::engine
