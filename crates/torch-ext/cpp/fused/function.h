// Helpers shared by our autograd functions.
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

// While this exists, operators on this thread do not apply autocast.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard cpu{c10::DispatchKey::AutocastCPU};
  c10::impl::ExcludeDispatchKeyGuard cuda{c10::DispatchKey::AutocastCUDA};
};

// Returns whether the tensor's data is aligned for 16-byte loads.
inline bool aligned(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

// Returns the tensor in the form that kernels require: contiguous and aligned. CPU tensors are
// returned as they are.
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

// Transfers ownership of all tensors to the caller, or of none if an allocation fails.
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
