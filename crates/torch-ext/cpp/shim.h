// The C interface of the shim: what tch lacks of libtorch.
//
// Every function that can fail returns null when it went well and otherwise a message, which
// lives in a buffer of the calling thread until its next call into the shim. No C++ exception
// leaves a function. A tensor is passed as tch holds it: a pointer to an at::Tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

#include <c10/util/Exception.h>

namespace at {
class Tensor;
}

// Keeps a copy of `text` for this thread and returns it.
const char* simdino_message(const char* text) noexcept;

// Runs `body`; null, or the message of what it threw.
template <class Body>
const char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return simdino_message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return simdino_message(error.what());
  } catch (...) {
    return simdino_message("unknown C++ exception");
  }
}

extern "C" {
typedef at::Tensor* tensor_ptr;

// Version of the libtorch whose headers this was compiled with, such as 2.11.0.
const char* simdino_torch_version() noexcept;
// CUDA version of libtorch as major * 1000 + minor * 10; 0 when it was built without CUDA.
const char* simdino_cuda_version(int64_t* out) noexcept;
// Name of CUDA device `index`, as the driver gives it, cut to `size - 1` bytes.
const char* simdino_cuda_name(int index, char* out, size_t size) noexcept;

// targets[i] += weight * (sources[i] - targets[i])
const char* simdino_foreach_lerp(
    const tensor_ptr* targets, const tensor_ptr* sources, size_t len, double weight) noexcept;
// out[i] = ||tensors[i]||_2, a new tensor owned by the caller
const char* simdino_foreach_norm(const tensor_ptr* tensors, size_t len, tensor_ptr* out) noexcept;
// tensors[i] *= factors[i], the factors being 0-dimensional
const char* simdino_foreach_mul(
    const tensor_ptr* tensors, const tensor_ptr* factors, size_t len) noexcept;

// Lists and numbers of one AdamW step; the layout is repeated in src/ffi.rs.
struct SimdinoAdamW {
  const tensor_ptr* params;
  const tensor_ptr* grads;
  const tensor_ptr* exp_avgs;
  const tensor_ptr* exp_avg_sqs;
  const tensor_ptr* steps;
  size_t len;
  double lr, beta1, beta2, weight_decay, eps;
};
const char* simdino_fused_adamw(const SimdinoAdamW* step) noexcept;

// Seeds the generators of the CPU and of every accelerator.
const char* simdino_manual_seed(uint64_t seed) noexcept;
// State of a device's default generator, a byte tensor on the CPU. `cuda_index` < 0 is the CPU.
const char* simdino_rng_state(int cuda_index, tensor_ptr* out) noexcept;
const char* simdino_set_rng_state(int cuda_index, tensor_ptr state) noexcept;

// Autocast of this thread, as it stood before it was changed; the layout is repeated in src/ffi.rs.
struct SimdinoAutocast {
  int32_t enabled;
  int32_t dtype;
};
// Enters a region. `dtype` is c10::ScalarType's number; negative switches autocast off.
const char* simdino_autocast_enter(int cuda, int dtype, SimdinoAutocast* before) noexcept;
// Leaves it: restores `before`, and forgets cached casts when no region is left.
const char* simdino_autocast_exit(int cuda, const SimdinoAutocast* before) noexcept;

// Bytes on a CUDA device; the layout is repeated in src/ffi.rs.
struct SimdinoMemory {
  uint64_t allocated, reserved, peak_allocated, free, total;
};
const char* simdino_cuda_memory(int index, SimdinoMemory* out) noexcept;
const char* simdino_cuda_reset_peak(int index) noexcept;

// Where the processes of a run meet, and which of them this is; repeated in src/ffi.rs.
struct SimdinoMeeting {
  const char* host;
  uint16_t port;
  int32_t hosts; // whether this process listens there
  int32_t rank, size;
  int64_t timeout_ms;
};
struct SimdinoGroup;
// Waits for all processes. The group is freed by simdino_group_free.
const char* simdino_group_new(const SimdinoMeeting* meeting, SimdinoGroup** out) noexcept;
void simdino_group_free(SimdinoGroup* group) noexcept;
// In place, over all processes; `op` 0 adds, 1 takes the largest.
const char* simdino_group_all_reduce(SimdinoGroup* group, tensor_ptr tensor, int op) noexcept;
// In place, the tensor of process `root` to all.
const char* simdino_group_broadcast(SimdinoGroup* group, tensor_ptr tensor, int root) noexcept;
const char* simdino_group_barrier(SimdinoGroup* group) noexcept;
}
