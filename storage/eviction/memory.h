// Heap use of the arrays that policies keep: counted, and grown by an eighth instead of doubled, since "bytes of memory
// per chunk" is a promise (docs/eviction.md).
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_EVICTION_MEMORY_H_
#define KDN_STORAGE_EVICTION_MEMORY_H_

#include <cstddef>
#include <vector>

namespace kdn {

template <typename T>
size_t HeapBytes(const std::vector<T>& v) {
  return v.capacity() * sizeof(T);
}

template <typename T>
void GrowTo(std::vector<T>& v, size_t size) {
  if (size <= v.size()) return;
  if (size > v.capacity()) v.reserve(size + size / 8 + 16);
  v.resize(size);
}

}  // namespace kdn

#endif  // KDN_STORAGE_EVICTION_MEMORY_H_
