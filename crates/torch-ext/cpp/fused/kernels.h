// Launches the kernels of norm.cu, norm_backward.cu, and columns.cu on the current stream of a
// tensor's device.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace simdino::fused {

// A residual branch: factor[image] * gamma * (output + bias). `kind` is the type of the output, or
// Undefined if there is no branch. The output holds `images` images: image i of the batch at
// places[i] (int32), or not at all if that is negative. If `places` is undefined, it holds all
// images in order. All tensors may be undefined; the backward pass needs the output only for gamma.
struct Branch {
  c10::ScalarType kind;
  int64_t images;
  at::Tensor output, bias, gamma, factor, places;
};

// The `count` images to normalize, with `places` as in Branch.
struct Selection {
  int64_t count;
  at::Tensor places;
};

// Gradients of all tensors that are defined. `branch` may be the same tensor as `x`.
struct AddNormGradients {
  at::Tensor x, branch, bias, gamma, weight, shift;
};

struct Normed {
  at::Tensor out, normed, mean, inverse;
};

// Returns why the kernels cannot run on CUDA device `index` for networks of width `dim`; empty if
// they can. The first call for a device and a width compiles them.
std::string why_not(int index, int64_t dim);

// In all functions below, tensors are contiguous, activations [.., dim] are in bfloat16, the
// residual stream is in float or bfloat16, and parameters are in float.
Normed add_norm(
    const at::Tensor& x, const Branch& branch, const Selection& selection, const at::Tensor& weight,
    const at::Tensor& shift, double eps);
AddNormGradients add_norm_backward(
    const at::Tensor& d_normed, const at::Tensor& d_out, const Normed& saved, const Branch& branch,
    const Selection& selection, const at::Tensor& weight);
at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias, int64_t dim);
// Returns the gradients of x and of the bias.
std::pair<at::Tensor, at::Tensor> bias_gelu_backward(
    const at::Tensor& d_activated, const at::Tensor& x, const at::Tensor& bias, int64_t dim);
// Merges three gradients [B, H, T, W] to [B, T, 3 H W]. Also returns their sums over images and
// tokens.
std::pair<at::Tensor, at::Tensor> merge_heads_backward(
    const at::Tensor& d_query, const at::Tensor& d_key, const at::Tensor& d_value);

}  // namespace simdino::fused
