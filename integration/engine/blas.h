// What the engine needs of OpenBLAS beyond its products.
//
// Thread-safety: call from main, before any thread is started.
#ifndef KDN_INTEGRATION_ENGINE_BLAS_H_
#define KDN_INTEGRATION_ENGINE_BLAS_H_

#include <string_view>

namespace kdn::engine {

// OpenBLAS picks its kernels while it is loaded, by a list of processors as old as itself; on one that it does not know
// it falls back to SSE, ten times slower. Where that has happened and the processor has AVX2 or AVX-512, this starts
// the program anew with OPENBLAS_CORETYPE set; otherwise, or where the variable is set already, it returns.
void PickBlasKernels(char** argv);

// The kernels in use, as OpenBLAS calls them.
std::string_view BlasKernels();

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_BLAS_H_
