// Launches the kernels of norm.cu, norm_backward.cu, and columns.cu on the current stream of a tensor's device.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace simdino::fused {

// A residual branch: factor[image] * gamma * (output + bias). `kind` is that of the output, Undefined where
// there is no branch. The output holds `images` of them, image i at places[i] (int32), nowhere where that is
// negative; all in order where `places` is undefined. All tensors may be undefined; backward needs the
// output for gamma alone.
struct Branch {
  c10::ScalarType kind;
  int64_t images;
  at::Tensor output, bias, gamma, factor, places;
};

// Images that are normalized: `count` of them, placed as above.
struct Selection {
  int64_t count;
  at::Tensor places;
};

// Gradients of what is defined. That of the branch may be the tensor of x's.
struct AddNormGradients {
  at::Tensor x, branch, bias, gamma, weight, shift;
};

struct Normed {
  at::Tensor out, normed, mean, inverse;
};

// Empty where the kernels run on CUDA device `index` for networks of width `dim`, otherwise why not. The
// first call for a device and a width compiles them.
std::string why_not(int index, int64_t dim);

// Tensors are contiguous, activations [.., dim] in bfloat16, the stream in float or bfloat16, parameters in
// float.
Normed add_norm(
    const at::Tensor& x, const Branch& branch, const Selection& selection, const at::Tensor& weight,
    const at::Tensor& shift, double eps);
AddNormGradients add_norm_backward(
    const at::Tensor& d_normed, const at::Tensor& d_out, const Normed& saved, const Branch& branch,
    const Selection& selection, const at::Tensor& weight);
at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias, int64_t dim);
// The gradients of x and of bias.
std::pair<at::Tensor, at::Tensor> bias_gelu_backward(
    const at::Tensor& d_activated, const at::Tensor& x, const at::Tensor& bias, int64_t dim);
// From gradients [B, H, T, W] to [B, T, 3 H W], and their sums over images and tokens.
std::pair<at::Tensor, at::Tensor> merge_heads_backward(
    const at::Tensor& d_query, const at::Tensor& d_key, const at::Tensor& d_value);

}  // namespace simdino::fused
