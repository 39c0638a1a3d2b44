// What our functions of autograd have in common.
#pragma once

#include "../shim.h"

#include <memory>
#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace simdino::fused {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;

// Operators see the tensors as they are, not as autocast would have them.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard cpu{c10::DispatchKey::AutocastCPU};
  c10::impl::ExcludeDispatchKeyGuard cuda{c10::DispatchKey::AutocastCUDA};
};

// Whether a kernel may read 16 bytes at once from the start.
inline bool aligned(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

// As the kernels read it: dense, and at such an address.
inline Tensor ready(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) {
    return tensor;
  }
  const auto dense = tensor.contiguous();
  return aligned(dense) ? dense : dense.clone();
}

inline Tensor ready(const Optional& tensor) {
  return tensor ? ready(*tensor) : Tensor();
}

inline Optional optional(tensor_ptr tensor) {
  return tensor == nullptr ? Optional() : Optional(*tensor);
}

// Hands tensors over to the caller, all of them or none.
inline void hand_over(const variable_list& tensors, tensor_ptr* out) {
  std::vector<std::unique_ptr<Tensor>> owned;
  for (const auto& tensor : tensors) {
    owned.push_back(std::make_unique<Tensor>(tensor));
  }
  for (auto& tensor : owned) {
    *out++ = tensor.release();
  }
}
}  // namespace simdino::fused
