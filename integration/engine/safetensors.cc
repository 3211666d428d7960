#include "integration/engine/safetensors.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "integration/engine/kernels.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100 << 20;  // the format's own limit
constexpr size_t kMaxRank = 8;

// Bytes an element, or 0 for a dtype that the format does not know.
uint64_t ElementSize(std::string_view dtype) {
  static constexpr std::pair<std::string_view, uint64_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  for (const auto& [name, size] : kSizes) {
    if (name == dtype) return size;
  }
  return 0;
}

std::optional<DType> FloatDType(std::string_view name) {
  if (name == "BF16") return DType::kBf16;
  if (name == "F16") return DType::kF16;
  if (name == "F32") return DType::kF32;
  return std::nullopt;
}

absl::StatusOr<uint64_t> ReadSize(const Json& json, const std::string& what) {
  if (!json.is_number_unsigned()) return InvalidArgument("{} holds {}; it must be whole numbers", what, json.dump());
  return json.get<uint64_t>();
}

// JSON objects may name a key twice and nlohmann keeps one of them; a tensor that is two things is refused instead.
absl::StatusOr<Json> ParseHeader(std::string_view text) {
  std::vector<std::set<std::string>> keys;
  std::string twice;
  const auto on_event = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second && twice.empty()) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  Json header = Json::parse(text.begin(), text.end(), on_event, /*allow_exceptions=*/false);
  if (!twice.empty()) return InvalidArgument("header names '{}' twice", twice);
  if (!header.is_object()) return InvalidArgument("header is not a JSON object");
  return header;
}

absl::StatusOr<TensorInfo> ParseTensor(const std::string& name, const Json& json, ByteSpan data) {
  if (!json.is_object()) return InvalidArgument("tensor '{}' is not described by an object", name);
  const Json dtype = json.value("dtype", Json());
  const Json shape = json.value("shape", Json());
  const Json offsets = json.value("data_offsets", Json());
  if (!dtype.is_string()) return InvalidArgument("tensor '{}': dtype is missing", name);
  if (!shape.is_array()) return InvalidArgument("tensor '{}': shape is missing", name);
  if (!offsets.is_array() || offsets.size() != 2) {
    return InvalidArgument("tensor '{}': data_offsets is not [begin, end]", name);
  }
  TensorInfo tensor{.dtype = dtype.get<std::string>(), .shape = {}, .bytes = {}};
  uint64_t size = ElementSize(tensor.dtype);
  if (size == 0) return InvalidArgument("tensor '{}': dtype '{}' is unknown", name, tensor.dtype);
  if (shape.size() > kMaxRank) {
    return InvalidArgument("tensor '{}': shape has {} dimensions; at most {}", name, shape.size(), kMaxRank);
  }
  for (const Json& dim : shape) {
    KDN_ASSIGN_OR_RETURN(const uint64_t extent, ReadSize(dim, fmt::format("tensor '{}': shape", name)));
    if (__builtin_mul_overflow(size, extent, &size)) {
      return InvalidArgument("tensor '{}': shape {} is larger than 2^64 bytes", name, shape.dump());
    }
    tensor.shape.push_back(extent);
  }
  KDN_ASSIGN_OR_RETURN(const uint64_t begin, ReadSize(offsets[0], fmt::format("tensor '{}': data_offsets", name)));
  KDN_ASSIGN_OR_RETURN(const uint64_t end, ReadSize(offsets[1], fmt::format("tensor '{}': data_offsets", name)));
  if (begin > end || end > data.size()) {
    return InvalidArgument("tensor '{}': data_offsets [{}, {}] lie outside the file's {} bytes of data; is it cut off?",
                           name, begin, end, data.size());
  }
  if (end - begin != size) {
    return InvalidArgument("tensor '{}': {} {} needs {} bytes, data_offsets give {}", name, tensor.dtype, shape.dump(),
                           size, end - begin);
  }
  tensor.bytes = data.subspan(begin, size);
  return tensor;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NotFound("{}: {}", path, std::strerror(errno));
  struct stat info {};
  const bool sized = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const size_t size = sized ? static_cast<size_t>(info.st_size) : 0;
  if (size < sizeof(uint64_t)) {
    close(fd);
    return InvalidArgument("{}: not a safetensors file: {} bytes are no header", path, size);
  }
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  close(fd);
  if (address == MAP_FAILED) return Unavailable("{}: cannot be mapped: {}", path, std::strerror(error));

  SafetensorsFile file;
  file.path_ = path;
  file.mapping_ = std::shared_ptr<const void>(address, [size](const void* p) { munmap(const_cast<void*>(p), size); });
  file.bytes_ = {static_cast<const uint8_t*>(address), size};
  if (absl::Status parsed = file.Parse(); !parsed.ok()) return Annotate(parsed, path);
  return file;
}

absl::Status SafetensorsFile::Parse() {
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes_.data(), sizeof header_size);
  if (header_size > kMaxHeaderBytes) {
    return InvalidArgument("header is said to have {} bytes; at most {} are taken", header_size, kMaxHeaderBytes);
  }
  if (header_size > bytes_.size() - sizeof header_size) {
    return InvalidArgument("header is said to have {} bytes, the file only has {}; is it cut off?", header_size,
                           bytes_.size() - sizeof header_size);
  }
  KDN_ASSIGN_OR_RETURN(const Json header, ParseHeader(AsStringView(bytes_.subspan(sizeof header_size, header_size))));
  const ByteSpan data = bytes_.subspan(sizeof header_size + header_size);
  std::vector<std::pair<ByteSpan, std::string_view>> ranges;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    KDN_ASSIGN_OR_RETURN(TensorInfo tensor, ParseTensor(name, json, data));
    const auto it = tensors_.emplace(name, std::move(tensor)).first;
    if (!it->second.bytes.empty()) ranges.emplace_back(it->second.bytes, it->first);
  }
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first.data() < b.first.data(); });
  for (size_t i = 1; i < ranges.size(); ++i) {
    const auto& [before, before_name] = ranges[i - 1];
    if (ranges[i].first.data() < before.data() + before.size()) {
      return InvalidArgument("tensors '{}' and '{}' overlap", before_name, ranges[i].second);
    }
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckFloats(const std::string& name, std::span<const uint64_t> shape) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return NotFound("{}: there is no tensor '{}'", path_, name);
  const TensorInfo& tensor = it->second;
  if (!std::ranges::equal(tensor.shape, shape)) {
    return InvalidArgument("{}: tensor '{}' has shape [{}]; config.json makes it [{}]", path_, name,
                           fmt::join(tensor.shape, ", "), fmt::join(shape, ", "));
  }
  if (!FloatDType(tensor.dtype)) {
    return InvalidArgument("{}: tensor '{}' is {}; this engine reads BF16, F16 and F32", path_, name, tensor.dtype);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::ReadFloats(const std::string& name, std::span<const uint64_t> shape,
                                         std::span<float> out) const {
  KDN_RETURN_IF_ERROR(CheckFloats(name, shape));
  const TensorInfo& tensor = tensors_.find(name)->second;
  const DType dtype = *FloatDType(tensor.dtype);
  if (tensor.bytes.size() / DTypeSize(dtype) != out.size()) {
    return InvalidArgument("{}: tensor '{}' has {} elements, {} are wanted", path_, name,
                           tensor.bytes.size() / DTypeSize(dtype), out.size());
  }
  ToFloats(dtype, tensor.bytes.data(), out);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return NotFound("{}: {}", path, std::strerror(errno));
  const std::streamoff size = in.tellg();
  if (size < 0) return InvalidArgument("{}: not a file that can be read", path);
  if (static_cast<uint64_t>(size) > max_bytes) {
    return InvalidArgument("{}: {} bytes; at most {} are taken", path, size, max_bytes);
  }
  std::string text(static_cast<size_t>(size), '\0');
  in.seekg(0);
  if (!in.read(text.data(), size)) return Unavailable("{}: cannot be read", path);
  return text;
}

}  // namespace kdn::engine
