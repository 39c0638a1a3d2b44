// Random generators, memory statistics, and device names. No CUDA header is needed, because the
// statistics come from c10's device-independent allocator interface.
#include "device.h"
#include "shim.h"

#include <algorithm>
#include <cstdio>
#include <mutex>

#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CachingDeviceAllocator.h>

#ifdef SIMDINO_CUDA
struct cudaDeviceProp;
namespace c10::cuda {
void set_device(c10::DeviceIndex device, bool force);
}
namespace at::cuda {
cudaDeviceProp* getDeviceProperties(c10::DeviceIndex device);
}
#endif

c10::Device cuda_device(int index) {
  TORCH_CHECK(at::globalContext().hasCUDA(), "no CUDA device is available");
  const auto count = at::detail::getCUDAHooks().getNumGPUs();
  TORCH_CHECK(index >= 0 && index < count, "cuda:", index, " does not exist, there are ", count);
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)};
}

namespace {
at::Generator generator(int cuda_index) {
  const auto device = cuda_index < 0 ? c10::Device(c10::DeviceType::CPU) : cuda_device(cuda_index);
  return at::globalContext().defaultGenerator(device);
}

uint64_t bytes(int64_t count) {
  return count < 0 ? 0 : static_cast<uint64_t>(count);
}
}  // namespace

const char* simdino_cuda_version(int64_t* out) noexcept {
  return guarded([&] {
#ifdef SIMDINO_CUDA
    *out = at::detail::getCUDAHooks().versionCUDART();
#else
    *out = 0;
#endif
  });
}

const char* simdino_cuda_set_device(int index) noexcept {
  return guarded([&] {
    const auto device = cuda_device(index);
#ifdef SIMDINO_CUDA
    c10::cuda::set_device(device.index(), /*force=*/false);
#else
    (void)device;
    TORCH_CHECK(false, "this libtorch was built without CUDA");
#endif
  });
}

const char* simdino_cuda_name(int index, char* out, size_t size) noexcept {
  return guarded([&] {
#ifdef SIMDINO_CUDA
    const auto device = cuda_device(index);
    // The name is the first member of cudaDeviceProp, a char[256].
    const auto* name = reinterpret_cast<const char*>(at::cuda::getDeviceProperties(device.index()));
    std::snprintf(out, size, "%.255s", name);
#else
    (void)out;
    (void)size;
    cuda_device(index);
    TORCH_CHECK(false, "this libtorch was built without CUDA");
#endif
  });
}

const char* simdino_manual_seed(uint64_t seed) noexcept {
  return guarded([&] { at::manual_seed(seed); });
}

const char* simdino_rng_state(int cuda_index, tensor_ptr* out) noexcept {
  return guarded([&] {
    auto of_device = generator(cuda_index);
    const std::lock_guard<std::mutex> lock(of_device.mutex());
    *out = new at::Tensor(of_device.get_state());
  });
}

const char* simdino_set_rng_state(int cuda_index, tensor_ptr state) noexcept {
  return guarded([&] {
    TORCH_CHECK(state != nullptr && state->defined(), "the state is undefined");
    auto of_device = generator(cuda_index);
    const std::lock_guard<std::mutex> lock(of_device.mutex());
    of_device.set_state(*state);
  });
}

const char* simdino_cuda_memory(int index, SimdinoMemory* out) noexcept {
  return guarded([&] {
    const auto device = cuda_device(index);
    auto* allocator = c10::getDeviceAllocator(device.type());
    const auto stats = allocator->getDeviceStats(device.index());
    const auto total = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    out->allocated = bytes(stats.allocated_bytes[total].current);
    out->peak_allocated = bytes(stats.allocated_bytes[total].peak);
    out->reserved = bytes(stats.reserved_bytes[total].current);
    if (has_graphs()) {
      // Memory that a replay uses belongs to no tensor and looks free, but nothing else can use it.
      out->allocated = out->reserved;
      out->peak_allocated = std::max(out->peak_allocated, out->reserved);
    }
    const auto memory = allocator->getMemoryInfo(device.index());
    out->free = memory.first;
    out->total = memory.second;
  });
}

const char* simdino_cuda_reset_peak(int index) noexcept {
  return guarded([&] {
    const auto device = cuda_device(index);
    c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
  });
}
