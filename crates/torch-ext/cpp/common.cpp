// Messages, versions, and the reference that keeps libtorch_cuda.so in the program.
#include "shim.h"

#include <cstdio>

#include <torch/headeronly/version.h>

#ifdef SIMDINO_CUDA
// Declared here, so that no CUDA header is needed.
namespace at::cuda {
int warp_size();
}
// Linkers drop a library of which no symbol is used, and CUDA then looks absent at run time.
// Exported and volatile, so that neither compiler nor linker may drop this use.
extern "C" {
int (*volatile simdino_keep_libtorch_cuda)() = &at::cuda::warp_size;
}
#endif

const char* simdino_message(const char* text) noexcept {
  thread_local char buffer[4096];
  std::snprintf(buffer, sizeof buffer, "%s", text == nullptr ? "" : text);
#ifdef SIMDINO_CUDA
  if (simdino_keep_libtorch_cuda == nullptr) {
    return "libtorch_cuda is not linked";
  }
#endif
  return buffer;
}

const char* simdino_torch_version() noexcept {
  return TORCH_VERSION;
}
