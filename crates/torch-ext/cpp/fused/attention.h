// Launches the kernels of attention.cu on the current stream of a tensor's device.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace simdino::fused {

// Empty where the kernels run on CUDA device `index` for sequences of so many tokens and heads of `width`
// columns, otherwise why not. The first call for a device and a number of tiles compiles them.
std::string attention_why_not(int index, int64_t tokens, int64_t width);

// Gradients of a projection [B, T, 3 D], and of its bias [3 D] if asked for.
struct AttentionGradients {
  at::Tensor qkv, bias;
};

// Tensors are contiguous, `qkv` is [B, T, 3 D] in bfloat16: the output [B, T, D], and of each row of scores
// the logarithm of base 2 of its exponentials' sum, [B, H, T] in float.
std::pair<at::Tensor, at::Tensor> attention(const at::Tensor& qkv, int64_t heads);
AttentionGradients attention_backward(
    const at::Tensor& d_out, const at::Tensor& qkv, const at::Tensor& out, const at::Tensor& log_sums,
    int64_t heads, bool bias);

}  // namespace simdino::fused
