// Products of activations and weights by kernels of cuBLASLt that libtorch would not choose.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace simdino::fused {

// A product as cuBLAS sees it, column by column: [m, n] from sums of k terms. n are the tokens.
struct Product {
  bool forward; // rows * weight^T, otherwise rows * weight
  bool bias;
  int64_t m, n, k;
};

// Empty where a kernel of ours computes the product on CUDA device `index`, otherwise why not.
std::string product_why_not(int index, const Product& product);

// rows * weight^T + bias for rows [M, K], or rows * weight for rows [M, N], of a weight [N, K]; all contiguous
// and in bfloat16. `bias` is [N] or undefined. The result is undefined where product_why_not has a reason.
at::Tensor product(
    const at::Tensor& rows, const at::Tensor& weight, bool forward, const at::Tensor& bias);

}  // namespace simdino::fused
