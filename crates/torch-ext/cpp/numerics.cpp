// libtorch's settings for determinism, and for TF32 in fp32 matrix products.
#include "shim.h"

#include <ATen/Context.h>
#include <c10/util/env.h>

namespace {
// cuBLAS reads it when the first handle is created, and libtorch at the first matrix product.
constexpr const char* kWorkspace = "CUBLAS_WORKSPACE_CONFIG";
// Eight buffers of 4 MiB, which is as much as libtorch gives a Hopper GPU by default.
constexpr const char* kRepeatable = ":4096:8";

bool tf32() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
      at::Float32Precision::TF32;
}
}  // namespace

const char* simdino_set_deterministic(int on) noexcept {
  return guarded([&] {
    auto& context = at::globalContext();
    if (on != 0) {
      c10::utils::set_env(kWorkspace, kRepeatable, /*overwrite=*/false);
    }
    // With warn_only, attention would keep using its nondeterministic kernels.
    context.setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
    context.setDeterministicCuDNN(on != 0);
    // Filling would cost time, and nothing here reads memory before writing it.
    context.setDeterministicFillUninitializedMemory(false);
  });
}

int simdino_is_deterministic() noexcept {
  const auto& context = at::globalContext();
  const bool strict = context.deterministicAlgorithms() && !context.deterministicAlgorithmsWarnOnly();
  return strict && context.deterministicCuDNN() ? 1 : 0;
}

const char* simdino_set_tf32(int allowed, int* before) noexcept {
  return guarded([&] {
    *before = tf32() ? 1 : 0;
    if (*before != allowed) {
      at::globalContext().setAllowTF32CuBLAS(allowed != 0);
    }
  });
}

const char* simdino_tf32(int* out) noexcept {
  return guarded([&] { *out = tf32() ? 1 : 0; });
}
