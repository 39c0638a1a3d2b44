// Launches the kernels of attention.cu on the current stream of a tensor's device.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace simdino::fused {

// Returns why the kernels cannot run on CUDA device `index` for sequences of `tokens` tokens and
// heads of `width` columns; empty if they can. The first call for a device and a number of tiles
// compiles them.
std::string attention_why_not(int index, int64_t tokens, int64_t width);

// Gradients of a projection [B, T, 3 D] and, if requested, of its bias [3 D].
struct AttentionGradients {
  at::Tensor qkv, bias;
};

// Returns the output [B, T, D] for `qkv` [B, T, 3 D] in bfloat16, and for each row of scores, the
// base-2 logarithm of the sum of its exponentials, [B, H, T] in float. All tensors, also in the
// backward pass, must be contiguous.
std::pair<at::Tensor, at::Tensor> attention(const at::Tensor& qkv, int64_t heads);
AttentionGradients attention_backward(
    const at::Tensor& d_out, const at::Tensor& qkv, const at::Tensor& out, const at::Tensor& log_sums,
    int64_t heads, bool bias);

}  // namespace simdino::fused
