// SafetensorsFile: one `.safetensors` file, mapped into memory and checked before anything of it is used.
//
// The format: u64le n, n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …}, then the data
// that the offsets count in. The file is taken for hostile: every offset, shape and size is checked against the file,
// so that a tensor that can be named can be read.
//
//   KDN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open("model.safetensors"));
//   std::vector<float> w(…);
//   KDN_RETURN_IF_ERROR(file.ReadFloats("model.norm.weight", {512}, w));
//
// Thread-safety: const methods may be called from any thread. The file must not be cut while it is mapped.
#ifndef KDN_INTEGRATION_ENGINE_SAFETENSORS_H_
#define KDN_INTEGRATION_ENGINE_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/base/buffer.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

struct TensorInfo {
  std::string dtype;  // as the file names it: "BF16", "F16", "F32", "I64", …
  std::vector<uint64_t> shape;
  ByteSpan bytes;
};

class SafetensorsFile {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT naming the tensor and what is wrong with it.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  ByteSpan file_bytes() const { return bytes_; }

  // NOT_FOUND: no such tensor. INVALID_ARGUMENT: another shape, or a dtype other than BF16, F16 and F32.
  absl::Status CheckFloats(const std::string& name, std::span<const uint64_t> shape) const;
  // Converts a tensor that CheckFloats lets pass into `out`, which has exactly its elements.
  absl::Status ReadFloats(const std::string& name, std::span<const uint64_t> shape, std::span<float> out) const;

 private:
  SafetensorsFile() = default;
  absl::Status Parse();

  std::string path_;
  std::shared_ptr<const void> mapping_;
  ByteSpan bytes_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
};

// Reads a small text file whole. NOT_FOUND, or INVALID_ARGUMENT when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes);

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_SAFETENSORS_H_
