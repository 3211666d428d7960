#include "kdn-client/ctl/archive.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "storage/base/status.h"
#include "storage/base/unique_fd.h"
#include "storage/chunk_assembler.h"

namespace kdn::ctl {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie in memory");

constexpr std::array<char, 8> kMagic = {'K', 'D', 'N', 'A', 'R', 'C', 'H', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kChunkMark = 0x4b4e4843;  // "CHNK"
constexpr uint32_t kEndMark = 0x21444e45;    // "END!"
constexpr uint32_t kLossyAllowed = 1;

struct FileHeader {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t zero;
  uint64_t checksum;  // of what is before it
};
static_assert(sizeof(FileHeader) == 24);

// Before each chunk, and at the end.
struct Head {
  uint32_t mark;
  uint32_t manifest_bytes;   // of a chunk; at the end 0
  uint64_t slab_bytes;       // of the chunk; at the end of all of them
  uint64_t expires_unix_ms;  // of a chunk, 0: never; at the end the number of chunks
  uint32_t flags;            // of a chunk: kLossyAllowed; at the end 0
  uint32_t zero;
  uint64_t digest;    // over all heads and manifests before it
  uint64_t checksum;  // of what is before it in the head
};
static_assert(sizeof(Head) == 48);

template <typename T>
ByteSpan BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}
template <typename T>
uint64_t ChecksumBefore(const T& value) {
  return SlabChecksum(BytesOf(value).first(sizeof value - sizeof(uint64_t)));
}
template <typename T>
T ValueOf(ByteSpan bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

uint64_t Chained(uint64_t digest, ByteSpan bytes) {
  const std::array<uint64_t, 2> both = {digest, SlabChecksum(bytes)};
  return SlabChecksum(BytesOf(both));
}

uint64_t ExpiryToMs(absl::Time expires) {
  if (expires == absl::InfiniteFuture()) return 0;
  return static_cast<uint64_t>(std::max<int64_t>(1, absl::ToUnixMillis(expires)));
}

absl::Status SyncFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return Unavailable("{}: it cannot be synced: {}", path, std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArchiveWriter>> ArchiveWriter::Create(const std::string& path) {
  auto file = std::make_unique<std::ofstream>(path + ".part", std::ios::binary | std::ios::trunc);
  if (!*file) return Unavailable("{}.part: it cannot be written: {}", path, std::strerror(errno));
  return std::unique_ptr<ArchiveWriter>(new ArchiveWriter(std::move(file), path));
}

ArchiveWriter::ArchiveWriter(std::ostream& out, std::string name) : out_(out), name_(std::move(name)) {}

ArchiveWriter::ArchiveWriter(std::unique_ptr<std::ofstream> file, const std::string& path)
    : file_(std::move(file)), out_(*file_), name_(path), part_(path + ".part") {}

ArchiveWriter::~ArchiveWriter() {
  if (part_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove(part_, ignored);
}

absl::Status ArchiveWriter::Write(ByteSpan bytes) {
  out_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out_) return Unavailable("{}: it cannot be written: {}; is the disk full?", name_, std::strerror(errno));
  return absl::OkStatus();
}

absl::Status ArchiveWriter::WriteHeader() {
  if (begun_) return absl::OkStatus();
  begun_ = true;
  FileHeader header = {.magic = kMagic, .version = kVersion, .zero = 0, .checksum = 0};
  header.checksum = ChecksumBefore(header);
  digest_ = Chained(0, BytesOf(header));
  return Write(BytesOf(header));
}

absl::Status ArchiveWriter::Add(const Chunk& chunk) {
  KDN_RETURN_IF_ERROR(WriteHeader());
  KDN_ASSIGN_OR_RETURN(const std::string manifest, EncodeManifest(*chunk.manifest));
  Head head = {.mark = kChunkMark,
               .manifest_bytes = static_cast<uint32_t>(manifest.size()),
               .slab_bytes = chunk.manifest->EncodedBytes(),
               .expires_unix_ms = ExpiryToMs(chunk.retention.expires),
               .flags = chunk.retention.lossy_allowed ? kLossyAllowed : 0,
               .zero = 0,
               .digest = digest_,
               .checksum = 0};
  head.checksum = ChecksumBefore(head);
  digest_ = Chained(Chained(digest_, BytesOf(head)), AsBytes(manifest));
  KDN_RETURN_IF_ERROR(Write(BytesOf(head)));
  KDN_RETURN_IF_ERROR(Write(AsBytes(manifest)));
  for (const SharedBuffer& slab : chunk.slabs) KDN_RETURN_IF_ERROR(Write(slab.span()));
  ++totals_.chunks;
  totals_.slab_bytes += head.slab_bytes;
  return absl::OkStatus();
}

absl::Status ArchiveWriter::Finish() {
  KDN_RETURN_IF_ERROR(WriteHeader());
  Head head = {.mark = kEndMark,
               .manifest_bytes = 0,
               .slab_bytes = totals_.slab_bytes,
               .expires_unix_ms = totals_.chunks,
               .flags = 0,
               .zero = 0,
               .digest = digest_,
               .checksum = 0};
  head.checksum = ChecksumBefore(head);
  KDN_RETURN_IF_ERROR(Write(BytesOf(head)));
  out_.flush();
  if (!out_) return Unavailable("{}: it cannot be written; is the disk full?", name_);
  if (file_ == nullptr) return absl::OkStatus();
  file_->close();
  KDN_RETURN_IF_ERROR(SyncFile(part_));
  std::error_code error;
  std::filesystem::rename(part_, name_, error);
  if (error) return Unavailable("{}: it cannot be renamed from {}: {}", name_, part_, error.message());
  part_.clear();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ArchiveReader>> ArchiveReader::Open(const std::string& path) {
  auto file = std::make_unique<std::ifstream>(path, std::ios::binary);
  if (!*file) return NotFound("{}: it cannot be opened: {}", path, std::strerror(errno));
  auto reader = std::unique_ptr<ArchiveReader>(new ArchiveReader(*file, path));
  std::error_code unknown;
  const uintmax_t size = std::filesystem::file_size(path, unknown);
  reader->file_bytes_ = unknown ? 0 : size;
  reader->file_ = std::move(file);
  KDN_RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

absl::StatusOr<std::unique_ptr<ArchiveReader>> ArchiveReader::Open(std::istream& in, const std::string& name) {
  auto reader = std::unique_ptr<ArchiveReader>(new ArchiveReader(in, name));
  KDN_RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

absl::Status ArchiveReader::Damaged(const std::string& what) const {
  return DataLoss("archive {}, near byte {}: {}; take another copy of it", name_, at_, what);
}

absl::Status ArchiveReader::Read(MutableByteSpan into) {
  in_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
  const auto got = static_cast<size_t>(in_.gcount());
  if (got != into.size()) {
    return Damaged(in_.bad() ? "it cannot be read" : "it ends here, in the middle; it was cut off");
  }
  at_ += got;
  return absl::OkStatus();
}

absl::Status ArchiveReader::ReadHeader() {
  std::array<uint8_t, sizeof(FileHeader)> bytes;
  KDN_RETURN_IF_ERROR(Read(bytes));
  const auto header = ValueOf<FileHeader>(bytes);
  if (header.magic != kMagic) return DataLoss("{}: it is no KDN archive; kdnctl export and get make them", name_);
  if (header.checksum != ChecksumBefore(header)) return Damaged("the header does not have its checksum");
  if (header.version != kVersion || header.zero != 0) {
    return Unimplemented("archive {}: it has format {}, this kdnctl knows {}; use a newer one", name_, header.version,
                         kVersion);
  }
  digest_ = Chained(0, bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Chunk>> ArchiveReader::Next() {
  if (ended_) return std::nullopt;
  std::array<uint8_t, sizeof(Head)> bytes;
  KDN_RETURN_IF_ERROR(Read(bytes));
  const auto head = ValueOf<Head>(bytes);
  if (head.checksum != ChecksumBefore(head)) return Damaged("a record does not have its checksum");
  if (head.digest != digest_) return Damaged("records are missing, repeated, or not in their order");
  if (head.zero != 0) return Damaged("a record has a field that should be 0");
  if (head.mark == kChunkMark) return ReadChunk(bytes);
  if (head.mark != kEndMark) return Damaged("there is no such kind of record");
  KDN_RETURN_IF_ERROR(CheckEnd(bytes));
  return std::nullopt;
}

absl::StatusOr<std::optional<Chunk>> ArchiveReader::ReadChunk(ByteSpan bytes) {
  const auto head = ValueOf<Head>(bytes);
  if (head.manifest_bytes == 0 || head.manifest_bytes > kMaxManifestBytes || (head.flags & ~kLossyAllowed) != 0 ||
      head.slab_bytes > kMaxChunkBytes || head.expires_unix_ms > uint64_t{1} << 62) {
    return Damaged("a chunk's record has a field that is out of range");
  }
  std::vector<uint8_t> manifest(head.manifest_bytes);
  KDN_RETURN_IF_ERROR(Read(manifest));
  absl::StatusOr<ChunkAssembler> assembler = ChunkAssembler::Start(manifest);
  if (!assembler.ok()) return Damaged("a manifest: " + MessageOf(assembler.status()));
  if (assembler->manifest()->EncodedBytes() != head.slab_bytes) return Damaged("a manifest of another size of slabs");
  digest_ = Chained(Chained(digest_, bytes), manifest);
  for (uint32_t slab = 0; slab < assembler->manifest()->slabs.size(); ++slab) {
    const MutableByteSpan room = assembler->Room(slab);
    KDN_RETURN_IF_ERROR(Read(room));
    assembler->Received(slab, room.size());
  }
  absl::StatusOr<Chunk> chunk = std::move(*assembler).Finish();
  if (!chunk.ok()) return Damaged(MessageOf(chunk.status()));
  chunk->retention.lossy_allowed = (head.flags & kLossyAllowed) != 0;
  if (head.expires_unix_ms != 0) {
    chunk->retention.expires = absl::FromUnixMillis(static_cast<int64_t>(head.expires_unix_ms));
  }
  ++totals_.chunks;
  totals_.slab_bytes += head.slab_bytes;
  return *std::move(chunk);
}

absl::Status ArchiveReader::CheckEnd(ByteSpan bytes) {
  const auto head = ValueOf<Head>(bytes);
  if (head.manifest_bytes != 0 || head.flags != 0 || head.expires_unix_ms != totals_.chunks ||
      head.slab_bytes != totals_.slab_bytes) {
    return Damaged("the end tells of other chunks than there are");
  }
  if (in_.peek() != std::istream::traits_type::eof()) return Damaged("there is more after its end");
  ended_ = true;
  return absl::OkStatus();
}

}  // namespace kdn::ctl
