#include "kdn-client/ctl/chunk_input.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <span>
#include <sstream>
#include <utility>

#include "kdn-client/ctl/fleet_queries.h"
#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

constexpr Token kBeginOfText = 256;  // of the byte tokenizer
constexpr size_t kLeastSpaceDigits = 4;
constexpr size_t kMaxSpaceFileBytes = size_t{1} << 20;

bool IsHex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
}

absl::Status AddKeyLines(std::istream& in, const std::string& name, std::vector<ChunkKey>& keys) {
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line.front() == '#') continue;
    const absl::StatusOr<ChunkKey> key = ChunkKey::FromHex(line);
    if (!key.ok()) return Annotate(key.status(), fmt::format("{}, line {}", name, number));
    if (keys.size() == kMaxInputKeys) return InvalidArgument("{}: more than {} keys", name, kMaxInputKeys);
    keys.push_back(*key);
  }
  return absl::OkStatus();
}

absl::StatusOr<Document> DocumentOf(std::string name, const NamedSpace& space, const ChunkFlags& flags,
                                    std::span<const Token> tokens) {
  Document document = {.name = std::move(name), .chunks = {}};
  KDN_ASSIGN_OR_RETURN(document.chunks, ChunkChain(space.id, space.chunk_tokens, tokens, flags.whole_only));
  return document;
}

absl::Status AddTokenDocuments(const NamedSpace& space, const ChunkFlags& flags, std::vector<Document>& documents) {
  std::ifstream file(flags.tokens_file);
  if (!file) return NotFound("--tokens: {} cannot be opened", flags.tokens_file);
  size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string name = fmt::format("{}:{}", flags.tokens_file, number);
    const absl::StatusOr<std::vector<Token>> tokens = ParseTokens(line);
    if (!tokens.ok()) return Annotate(tokens.status(), "--tokens: " + name);
    KDN_ASSIGN_OR_RETURN(Document document, DocumentOf(name, space, flags, *tokens));
    documents.push_back(std::move(document));
  }
  return absl::OkStatus();
}

}  // namespace

void DeclareChunkFlags(CLI::App& app, ChunkFlags& flags, const std::string& keys_help) {
  app.add_option("KEY", flags.keys,
                 keys_help + ": 64 hexadecimal digits, @FILE for a file of them, - for standard input")
      ->type_name("");
  app.add_option("--tokens", flags.tokens_file, "Documents as tokens: one a line, a JSON array or numbers")
      ->type_name("FILE");
  app.add_option("--text", flags.text_files, "A document as text whose bytes are its tokens; may be given many times")
      ->type_name("FILE")
      ->expected(1)
      ->take_all();
  app.add_flag("--bos", flags.bos, "Text begins with the byte tokenizer's BOS token");
  app.add_option("--space", flags.space,
                 "The chunks' space: its id, the first digits of one that is held, or a file with its canonical bytes; "
                 "not needed when only one is held")
      ->type_name("SPACE");
  app.add_option("--chunk-tokens", flags.chunk_tokens,
                 "Tokens of a whole chunk; unless given, those of the longest chunk that is held for the space")
      ->type_name("N")
      ->check(CLI::Range(1U, kMaxChunkTokens));
}

std::vector<ChunkKey> ChunkInput::Keys() const {
  std::vector<ChunkKey> keys;
  for (const Document& document : documents) {
    for (const ChunkRef& chunk : document.chunks) keys.push_back(chunk.key);
  }
  return keys;
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t limit) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("{}: it cannot be opened", path);
  std::string bytes;
  std::vector<char> part(size_t{1} << 20);
  while (file.read(part.data(), static_cast<std::streamsize>(part.size())) || file.gcount() > 0) {
    bytes.append(part.data(), static_cast<size_t>(file.gcount()));
    if (bytes.size() > limit) return InvalidArgument("{}: it has more than {} bytes", path, limit);
  }
  if (file.bad()) return Unavailable("{}: it cannot be read", path);
  return bytes;
}

absl::StatusOr<std::vector<ChunkKey>> ReadKeys(const std::vector<std::string>& arguments, std::istream& in) {
  std::vector<ChunkKey> keys;
  for (const std::string& argument : arguments) {
    if (argument == "-") {
      KDN_RETURN_IF_ERROR(AddKeyLines(in, "standard input", keys));
    } else if (argument.starts_with("@")) {
      std::ifstream file(argument.substr(1));
      if (!file) return NotFound("{}: it cannot be opened", argument.substr(1));
      KDN_RETURN_IF_ERROR(AddKeyLines(file, argument.substr(1), keys));
    } else {
      const absl::StatusOr<ChunkKey> key = ChunkKey::FromHex(argument);
      if (!key.ok()) return InvalidArgument("key '{}': it is not 64 hexadecimal digits", argument);
      keys.push_back(*key);
    }
  }
  return keys;
}

absl::StatusOr<std::vector<Token>> ParseTokens(std::string_view line) {
  std::vector<Token> tokens;
  const size_t open = line.find('[');
  const bool is_array = open != std::string_view::npos;
  if (is_array) {
    const size_t close = line.rfind(']');
    if (close == std::string_view::npos || close < open ||
        line.substr(0, open).find_first_not_of(" \t") != std::string_view::npos ||
        line.substr(close + 1).find_first_not_of(" \t\r") != std::string_view::npos) {
      return InvalidArgument("it is neither a JSON array of tokens nor numbers apart by spaces");
    }
    line = line.substr(open + 1, close - open - 1);
  }
  const char* at = line.data();
  const char* const end = at + line.size();
  bool wants_comma = false;
  while (true) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r')) ++at;
    if (at < end && is_array && wants_comma && *at == ',') {
      ++at;
      wants_comma = false;
      continue;
    }
    if (at == end) break;
    Token token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    const bool ends_well = next == end || *next == ' ' || *next == '\t' || *next == '\r' || (is_array && *next == ',');
    if (error != std::errc() || !ends_well || (is_array && wants_comma)) {
      return InvalidArgument("'{}' is not a token; tokens are numbers from 0 to {}",
                             std::string_view(at, std::min<size_t>(20, static_cast<size_t>(end - at))),
                             std::numeric_limits<Token>::max());
    }
    if (tokens.size() == kMaxDocumentTokens) return InvalidArgument("more than {} tokens", kMaxDocumentTokens);
    tokens.push_back(token);
    at = next;
    wants_comma = true;
  }
  if (is_array && !wants_comma && !tokens.empty()) return InvalidArgument("the array ends with a comma");
  return tokens;
}

std::vector<Token> TextTokens(std::string_view text, bool with_bos) {
  std::vector<Token> tokens;
  tokens.reserve(text.size() + 1);
  if (with_bos) tokens.push_back(kBeginOfText);
  for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
  return tokens;
}

absl::StatusOr<KvSpace> ReadSpaceFile(const std::string& path) {
  KDN_ASSIGN_OR_RETURN(const std::string bytes, ReadWholeFile(path, kMaxSpaceFileBytes));
  absl::StatusOr<KvSpace> space = DecodeSpace(AsBytes(bytes));
  if (!space.ok()) return Annotate(space.status(), "--space: " + path);
  return space;
}

absl::StatusOr<NamedSpace> FindSpace(Context& context, const std::string& text) {
  if (text.size() == 2 * kDigestSize && IsHex(text)) {
    NamedSpace space;
    KDN_ASSIGN_OR_RETURN(space.id, SpaceId::FromHex(text));
    return space;
  }
  if (!text.empty() && !IsHex(text)) {
    KDN_ASSIGN_OR_RETURN(const KvSpace space, ReadSpaceFile(text));
    KDN_ASSIGN_OR_RETURN(const SpaceId id, ComputeSpaceId(space));
    return NamedSpace{.id = id, .chunk_tokens = space.chunk_tokens};
  }
  if (!text.empty() && text.size() < kLeastSpaceDigits) {
    return InvalidArgument("--space: '{}' is too short; give at least {} digits", text, kLeastSpaceDigits);
  }
  std::string prefix = text;
  std::ranges::transform(prefix, prefix.begin(), [](char c) { return static_cast<char>(std::tolower(c)); });
  KDN_ASSIGN_OR_RETURN(const SpaceList list, ListSpaces(context));
  std::vector<const v1::SpaceHeld*> matching;
  for (const auto& [id, held] : list.spaces) {
    if (id.ToHex().starts_with(prefix)) matching.push_back(&held);
  }
  if (matching.empty()) {
    return text.empty() ? NotFound("no space is held; name one by --space")
                        : NotFound("--space: no space that is held begins with {}", text);
  }
  if (matching.size() > 1) {
    return InvalidArgument("--space: {} spaces are held{}; `kdnctl spaces` lists them, name one", matching.size(),
                           text.empty() ? "" : " that begin with " + text);
  }
  NamedSpace space;
  KDN_ASSIGN_OR_RETURN(space.id, SpaceId::FromBytes(AsBytes(matching.front()->space_id())));
  space.chunk_tokens = matching.front()->chunk_tokens();
  return space;
}

absl::StatusOr<ChunkInput> ReadChunks(Context& context, const ChunkFlags& flags) {
  ChunkInput input;
  if (!flags.keys.empty()) {
    KDN_ASSIGN_OR_RETURN(const std::vector<ChunkKey> keys, ReadKeys(flags.keys, context.terminal().in));
    Document document = {.name = "keys", .chunks = {}};
    for (const ChunkKey& key : keys) document.chunks.push_back({.key = key, .parent = {}});
    input.documents.push_back(std::move(document));
  }
  const bool by_tokens = !flags.tokens_file.empty() || !flags.text_files.empty();
  if (!by_tokens && flags.keys.empty()) {
    return InvalidArgument("name chunks: by KEY, --tokens FILE or --text FILE");
  }
  if (!by_tokens && flags.space.empty()) return input;
  KDN_ASSIGN_OR_RETURN(input.space, FindSpace(context, flags.space));
  if (!by_tokens) return input;
  if (flags.chunk_tokens > 0) input.space->chunk_tokens = flags.chunk_tokens;
  if (input.space->chunk_tokens == 0) {
    KDN_ASSIGN_OR_RETURN(const SpaceList list, ListSpaces(context));
    const auto held = list.spaces.find(input.space->id);
    if (held == list.spaces.end()) {
      return NotFound("space {}: nothing is held for it, so that its chunks' length is not known; give --chunk-tokens",
                      input.space->id.ToShortHex());
    }
    input.space->chunk_tokens = held->second.chunk_tokens();
  }
  if (!flags.tokens_file.empty()) KDN_RETURN_IF_ERROR(AddTokenDocuments(*input.space, flags, input.documents));
  for (const std::string& path : flags.text_files) {
    KDN_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kMaxInputFileBytes));
    KDN_ASSIGN_OR_RETURN(Document document, DocumentOf(path, *input.space, flags, TextTokens(text, flags.bos)));
    input.documents.push_back(std::move(document));
  }
  return input;
}

}  // namespace kdn::ctl
