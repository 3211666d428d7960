// Chunks as a command line names them: by keys, by the tokens or the text of documents, and the spaces that they are
// of.
//
//   auto flags = std::make_shared<ChunkFlags>();
//   DeclareChunkFlags(app, *flags);
//   …
//   KDN_ASSIGN_OR_RETURN(const ChunkInput input, ReadChunks(context, *flags));
//   for (const Document& document : input.documents) …
//
// Keys are 64 hexadecimal digits; `@FILE` stands for the keys in a file, one a line, and `-` for those on standard
// input. A file of tokens has one document a line, a JSON array or numbers apart by spaces. A file of text is one
// document, and a byte of it is a token.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_CHUNK_INPUT_H_
#define KDN_KDN_CLIENT_CTL_CHUNK_INPUT_H_

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kdn-client/ctl/context.h"
#include "storage/format/chunk_key.h"
#include "storage/format/kv_space.h"

namespace CLI {
class App;
}

namespace kdn::ctl {

inline constexpr size_t kMaxInputKeys = size_t{1} << 22;
inline constexpr size_t kMaxDocumentTokens = size_t{1} << 24;
inline constexpr uint64_t kMaxInputFileBytes = uint64_t{1} << 30;

struct ChunkFlags {
  std::vector<std::string> keys;
  std::string tokens_file;
  std::vector<std::string> text_files;
  bool bos = false;
  std::string space;
  uint32_t chunk_tokens = 0;  // 0: as long as the longest chunk that is held for the space
  bool whole_only = true;     // leave out a last chunk that is not full
};
// `keys_help`: what the positional keys are for.
void DeclareChunkFlags(CLI::App& app, ChunkFlags& flags, const std::string& keys_help);

struct NamedSpace {
  SpaceId id;
  uint32_t chunk_tokens = 0;  // 0: not known
};

struct Document {
  std::string name;              // "keys", or the file and the line
  std::vector<ChunkRef> chunks;  // by keys alone: without the rest
};

struct ChunkInput {
  std::optional<NamedSpace> space;  // there whenever tokens or text were given
  std::vector<Document> documents;

  std::vector<ChunkKey> Keys() const;
};

// INVALID_ARGUMENT names flag, file and line. NOT_FOUND: a file, or the space.
absl::StatusOr<ChunkInput> ReadChunks(Context& context, const ChunkFlags& flags);

// Keys from positional arguments, `@FILE` and `-` included.
absl::StatusOr<std::vector<ChunkKey>> ReadKeys(const std::vector<std::string>& arguments, std::istream& in);
// "[1, 2, 3]" or "1 2 3".
absl::StatusOr<std::vector<Token>> ParseTokens(std::string_view line);
std::vector<Token> TextTokens(std::string_view text, bool with_bos);
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t limit);
// The space of --space, a file with its canonical bytes.
absl::StatusOr<KvSpace> ReadSpaceFile(const std::string& path);

// `text`: 64 hexadecimal digits; or the first of them, at least four, of a space that the nodes hold; or the path of a
// file with a space's canonical bytes; or empty: the only space that the nodes hold. NOT_FOUND, INVALID_ARGUMENT.
absl::StatusOr<NamedSpace> FindSpace(Context& context, const std::string& text);

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_CHUNK_INPUT_H_
