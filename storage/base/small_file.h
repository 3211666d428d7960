// Small files that are read whole and replaced whole: profiles, caches, and what a directory belongs to.
//
//   KDN_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, 1 << 16));
//   KDN_RETURN_IF_ERROR(ReplaceFile(path, text, Durability::kSynced));
//
// Thread-safety: any number of readers and writers of one path, in any processes.
#ifndef KDN_STORAGE_BASE_SMALL_FILE_H_
#define KDN_STORAGE_BASE_SMALL_FILE_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kdn {

// NOT_FOUND: there is no such file. INVALID_ARGUMENT: it is no regular file, or longer than `longest` bytes.
// UNAVAILABLE: it cannot be read. All of them name the path.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t longest);

enum class Durability {
  kNone,    // a power failure may leave anything
  kSynced,  // … the old file or the new one
};

// Whoever reads the file, at any moment, finds the old one or the new one, whole. UNAVAILABLE naming the path.
absl::Status ReplaceFile(const std::string& path, std::string_view bytes, Durability durability);

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_SMALL_FILE_H_
