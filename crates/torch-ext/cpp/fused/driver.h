// Compilation of kernels with NVRTC, which comes with libtorch, and launches through the CUDA
// driver. Both libraries are opened at run time, so that a machine without a GPU needs neither.
// Only included in builds with CUDA's headers.
#pragma once

#include <array>
#include <memory>
#include <string>

#include <cuda.h>
#include <dlfcn.h>
#include <nvrtc.h>

#include <ATen/cuda/CUDAContextLight.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

namespace simdino::fused {

// Returns a function of a library that was opened at run time.
template <class Signature>
Signature* symbol(void* library, const char* name) {
  auto* found = reinterpret_cast<Signature*>(dlsym(library, name));
  TORCH_CHECK(found != nullptr, name, " is missing");
  return found;
}

inline void* open_library(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL)) {
      return library;
    }
  }
  TORCH_CHECK(false, "cannot open ", *names.begin(), ": ", dlerror());
}

struct Api {
  void* driver = open_library({"libcuda.so.1", "libcuda.so"});
  // The first is libtorch's own, which depends on the NVRTC that libtorch was built with.
  void* nvrtc = open_library({"libcaffe2_nvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"});
#define SIMDINO_SYMBOL(library, name) decltype(::name)* name = symbol<decltype(::name)>(library, #name)
  SIMDINO_SYMBOL(nvrtc, nvrtcCreateProgram);
  SIMDINO_SYMBOL(nvrtc, nvrtcDestroyProgram);
  SIMDINO_SYMBOL(nvrtc, nvrtcCompileProgram);
  SIMDINO_SYMBOL(nvrtc, nvrtcGetCUBINSize);
  SIMDINO_SYMBOL(nvrtc, nvrtcGetCUBIN);
  SIMDINO_SYMBOL(nvrtc, nvrtcGetProgramLogSize);
  SIMDINO_SYMBOL(nvrtc, nvrtcGetProgramLog);
  SIMDINO_SYMBOL(nvrtc, nvrtcGetErrorString);
  SIMDINO_SYMBOL(driver, cuModuleLoadData);
  SIMDINO_SYMBOL(driver, cuModuleGetFunction);
  SIMDINO_SYMBOL(driver, cuLaunchKernel);
  SIMDINO_SYMBOL(driver, cuOccupancyMaxActiveBlocksPerMultiprocessor);
  SIMDINO_SYMBOL(driver, cuFuncSetAttribute);
  SIMDINO_SYMBOL(driver, cuGetErrorString);
#undef SIMDINO_SYMBOL

  void check(CUresult status, const char* what) const {
    const char* text = nullptr;
    if (status != CUDA_SUCCESS) {
      cuGetErrorString(status, &text);
      TORCH_CHECK(false, what, ": ", text ? text : "unknown error of the driver");
    }
  }
  void check(nvrtcResult status, const char* what) const {
    TORCH_CHECK(status == NVRTC_SUCCESS, what, ": ", nvrtcGetErrorString(status));
  }

  static const Api& get() {
    static const Api api; // if this throws, the next call tries again
    return api;
  }
};

// Compiles the source of kernels for a GPU, with the given -D options, and returns the cubin.
template <class... Definitions>
std::string compile(
    const Api& api, const cudaDeviceProp& gpu, const char* text, const Definitions&... definitions) {
  nvrtcProgram program = nullptr;
  api.check(
      api.nvrtcCreateProgram(&program, text, "kernels.cu", 0, nullptr, nullptr), "NVRTC");
  const auto destroy = [&](nvrtcProgram* p) { api.nvrtcDestroyProgram(p); };
  const std::unique_ptr<nvrtcProgram, decltype(destroy)> owner(&program, destroy);
  const std::string arch =
      "--gpu-architecture=sm_" + std::to_string(gpu.major) + std::to_string(gpu.minor);
  const std::array<const char*, 2 + sizeof...(definitions)> options{
      arch.c_str(), "--std=c++17", definitions.c_str()...};
  const auto status =
      api.nvrtcCompileProgram(program, static_cast<int>(options.size()), options.data());
  size_t size = 0;
  if (status != NVRTC_SUCCESS && api.nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS) {
    std::string log(size, '\0');
    api.nvrtcGetProgramLog(program, log.data());
    TORCH_CHECK(false, "NVRTC: ", api.nvrtcGetErrorString(status), "\n", log.c_str());
  }
  api.check(status, "NVRTC");
  api.check(api.nvrtcGetCUBINSize(program, &size), "NVRTC");
  std::string code(size, '\0');
  api.check(api.nvrtcGetCUBIN(program, code.data()), "NVRTC");
  return code;
}

// Makes a device current, including its context in the driver, which a thread that has not used the
// device yet lacks.
struct On {
  c10::DeviceGuard guard;
  explicit On(c10::Device device) : guard(device) { c10::cuda::set_device(device.index(), true); }
};

}  // namespace simdino::fused
