#include "integration/engine/blas.h"

#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace kdn::engine {

std::string_view BlasKernels() { return openblas_get_corename(); }

void PickBlasKernels(char** argv) {
#if defined(__x86_64__)
  constexpr std::array<std::string_view, 6> kWithoutAvx = {"Prescott",   "Core2",     "Penryn",
                                                           "Dunnington", "Northwood", "Generic"};
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  if (std::getenv(kVariable) != nullptr || std::ranges::find(kWithoutAvx, BlasKernels()) == kWithoutAvx.end()) return;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  setenv(kVariable, avx512 ? "SkylakeX" : "Haswell", /*overwrite=*/0);
  execv("/proc/self/exe", argv);  // returns only when it fails; then the slow kernels have to do
#else
  static_cast<void>(argv);
#endif
}

}  // namespace kdn::engine
