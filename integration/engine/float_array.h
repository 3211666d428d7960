// FloatArray: uninitialised floats on a 64-byte boundary, with one owner. All matrices of the engine live in these, so
// that a product never runs on another alignment than the same product did before.
//
// Thread-safety: one thread at a time; const reads from any thread.
#ifndef KDN_INTEGRATION_ENGINE_FLOAT_ARRAY_H_
#define KDN_INTEGRATION_ENGINE_FLOAT_ARRAY_H_

#include <cstddef>
#include <span>

#include "storage/base/buffer.h"

namespace kdn::engine {

class FloatArray {
 public:
  FloatArray() = default;
  explicit FloatArray(size_t size) : bytes_(size * sizeof(float)) {}

  float* data() { return reinterpret_cast<float*>(bytes_.data()); }
  const float* data() const { return reinterpret_cast<const float*>(bytes_.data()); }
  size_t size() const { return bytes_.size() / sizeof(float); }
  bool empty() const { return size() == 0; }
  std::span<float> span() { return {data(), size()}; }
  std::span<const float> span() const { return {data(), size()}; }

  // Makes room for at least `size` floats; the contents are lost when it has to grow.
  void Reserve(size_t size) {
    if (size > this->size()) *this = FloatArray(size);
  }

 private:
  Buffer bytes_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_FLOAT_ARRAY_H_
