// Archive: chunks in a file, encoded as they are stored, with their manifests (docs/formats.md, "Archive").
//
//   KDN_ASSIGN_OR_RETURN(auto writer, ArchiveWriter::Create(path));
//   KDN_RETURN_IF_ERROR(writer->Add(chunk));
//   KDN_RETURN_IF_ERROR(writer->Finish());             // only now the file is there
//
//   KDN_ASSIGN_OR_RETURN(auto reader, ArchiveReader::Open(path));
//   while (true) {
//     KDN_ASSIGN_OR_RETURN(const std::optional<Chunk> chunk, reader->Next());
//     if (!chunk.has_value()) break;                    // the end, checked
//   }
//
// Both stream: one chunk is in memory at a time. Every byte of the file is covered by a checksum, and the end says how
// many chunks there are: a reader that came to the end has read what was written.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CTL_ARCHIVE_H_
#define KDN_KDN_CLIENT_CTL_ARCHIVE_H_

#include <cstdint>
#include <fstream>
#include <istream>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/chunk.h"

namespace kdn::ctl {

struct ArchiveTotals {
  uint64_t chunks = 0;
  uint64_t slab_bytes = 0;
};

class ArchiveWriter {
 public:
  // Writes to `path` + ".part" until Finish. UNAVAILABLE: it cannot be made.
  static absl::StatusOr<std::unique_ptr<ArchiveWriter>> Create(const std::string& path);
  // To a stream that outlives the writer.
  ArchiveWriter(std::ostream& out, std::string name);
  ~ArchiveWriter();  // without Finish nothing is left
  ArchiveWriter(const ArchiveWriter&) = delete;
  ArchiveWriter& operator=(const ArchiveWriter&) = delete;

  // Slabs as their manifest says; they are not checked here. UNAVAILABLE: the disk does not take it.
  absl::Status Add(const Chunk& chunk);
  // Writes the end; a file is synced and gets its name. Once.
  absl::Status Finish();

  const ArchiveTotals& totals() const { return totals_; }

 private:
  ArchiveWriter(std::unique_ptr<std::ofstream> file, const std::string& path);
  absl::Status Write(ByteSpan bytes);
  absl::Status WriteHeader();

  std::unique_ptr<std::ofstream> file_;  // of a file
  std::ostream& out_;
  const std::string name_;
  std::string part_;  // the file's name until Finish; empty: it is no file, or finished
  bool begun_ = false;
  uint64_t digest_ = 0;
  ArchiveTotals totals_;
};

class ArchiveReader {
 public:
  // NOT_FOUND: the file cannot be opened; otherwise as of a stream.
  static absl::StatusOr<std::unique_ptr<ArchiveReader>> Open(const std::string& path);
  // From a stream that outlives the reader. DATA_LOSS: it is no archive. UNIMPLEMENTED: one of a later format.
  static absl::StatusOr<std::unique_ptr<ArchiveReader>> Open(std::istream& in, const std::string& name);

  // The next chunk, every byte checked; nothing at the end. DATA_LOSS says where the archive is damaged or cut off.
  absl::StatusOr<std::optional<Chunk>> Next();

  const ArchiveTotals& totals() const { return totals_; }
  uint64_t bytes_read() const { return at_; }
  uint64_t file_bytes() const { return file_bytes_; }  // 0: not known

 private:
  ArchiveReader(std::istream& in, std::string name) : in_(in), name_(std::move(name)) {}
  absl::Status ReadHeader();
  absl::Status Read(MutableByteSpan into);
  absl::Status Damaged(const std::string& what) const;
  absl::StatusOr<std::optional<Chunk>> ReadChunk(ByteSpan head);
  absl::Status CheckEnd(ByteSpan head);

  std::unique_ptr<std::ifstream> file_;  // of a file
  std::istream& in_;
  const std::string name_;
  uint64_t at_ = 0;
  uint64_t file_bytes_ = 0;
  uint64_t digest_ = 0;
  ArchiveTotals totals_;
  bool ended_ = false;
};

}  // namespace kdn::ctl

#endif  // KDN_KDN_CLIENT_CTL_ARCHIVE_H_
