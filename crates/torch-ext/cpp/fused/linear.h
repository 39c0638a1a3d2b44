// Matrix products of activations and weights with cuBLASLt kernels that libtorch would not choose.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace simdino::fused {

// A product as cuBLAS sees it, in column-major order: a result [m, n] of sums of k terms, where n
// is the number of tokens.
struct Product {
  bool forward; // rows * weight^T, otherwise rows * weight
  bool bias;
  int64_t m, n, k;
};

// Returns why we do not choose the kernel of this product on CUDA device `index`; empty if we do.
std::string product_why_not(int index, const Product& product);

// Computes rows * weight^T + bias for rows [M, K] if `forward`, otherwise rows * weight for rows
// [M, N], with a weight [N, K]. All tensors are contiguous and in bfloat16; `bias` is [N] or
// undefined. Returns an undefined tensor if no kernel of ours can compute the product.
at::Tensor product(
    const at::Tensor& rows, const at::Tensor& weight, bool forward, const at::Tensor& bias);

}  // namespace simdino::fused
