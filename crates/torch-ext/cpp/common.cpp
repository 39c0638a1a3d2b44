// Messages, versions, and the reference that keeps the program linked to libtorch_cuda.so.
#include "shim.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include <torch/headeronly/version.h>

#ifdef SIMDINO_CUDA
// Declared here, so that no CUDA header is needed.
namespace at::cuda {
int warp_size();
}
// Linkers drop a library if no symbol of it is used, and CUDA then appears to be unavailable at run
// time. This reference is exported and volatile, so neither compiler nor linker may drop it.
extern "C" {
int (*volatile simdino_keep_libtorch_cuda)() = &at::cuda::warp_size;
}
#endif

bool simdino_shows_backtraces() noexcept {
  const char* value = std::getenv("TORCH_SHOW_CPP_STACKTRACES");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

const char* simdino_message(const char* text) noexcept {
  thread_local std::string buffer;
#ifdef SIMDINO_CUDA
  if (simdino_keep_libtorch_cuda == nullptr) {
    return "libtorch_cuda is not linked";
  }
#endif
  try {
    buffer = text == nullptr ? "" : text;
  } catch (const std::exception&) {
    return "out of memory, while a message was kept";
  }
  return buffer.c_str();
}

const char* simdino_torch_version() noexcept {
  return TORCH_VERSION;
}
