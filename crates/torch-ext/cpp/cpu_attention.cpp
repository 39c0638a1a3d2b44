// Attention in bfloat16, without gradients, on processors that multiply bfloat16 (AVX-512 BF16) but have no
// matrix unit (AMX). libtorch computes it there with products of fp32 instructions, at less than half the speed.
//
// Keys and values are first packed in panels that the products read in order. Then each tile of 12 queries computes
// all its scores, their softmax, and the mixture of values; scores and sums are in fp32.
#include "shim.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "in_parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#define AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace {
using at::Tensor;
using bf16 = uint16_t; // the bits of a number

constexpr int64_t kLanes = 16; // fp32 numbers in a vector
constexpr int64_t kRows = 12; // of a tile: 24 vectors of sums stay in registers
constexpr int64_t kColumns = 2 * kLanes; // of a panel
constexpr int64_t kTiles = 4; // of queries in a piece of work

int64_t padded(int64_t size) {
  return (size + kColumns - 1) / kColumns * kColumns;
}

// One of queries, keys, and values: [B, H, T, W] with W dense.
struct Heads {
  explicit Heads(const Tensor& x)
      : data(static_cast<const bf16*>(x.data_ptr())), batch(x.stride(0)), head(x.stride(1)), token(x.stride(2)) {}
  const bf16* at(int64_t image, int64_t h, int64_t t) const {
    return data + image * batch + h * head + t * token;
  }
  const bf16* data;
  int64_t batch, head, token;
};

// Keys [T, W] as panels [T / 32][W / 2][32][2]: 32 keys with two of their numbers next to each other.
void pack_keys(const bf16* keys, int64_t stride, int64_t tokens, int64_t width, bf16* panels) {
  for (int64_t t = 0; t < tokens; ++t) {
    bf16* const panel = panels + t / kColumns * width * kColumns + t % kColumns * 2;
    for (int64_t pair = 0; pair < width / 2; ++pair) {
      std::memcpy(panel + pair * 2 * kColumns, keys + t * stride + pair * 2, 2 * sizeof(bf16));
    }
  }
}

// Values [T, W] as panels [W / 32][T / 2][32][2]: 32 columns with those of two tokens next to each other.
void pack_values(const bf16* values, int64_t stride, int64_t tokens, int64_t width, bf16* panels) {
  const int64_t pairs = padded(tokens) / 2;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t column = 0; column < width; ++column) {
      const int64_t row = column / kColumns * pairs + t / 2;
      panels[(row * kColumns + column % kColumns) * 2 + t % 2] = values[t * stride + column];
    }
  }
}

// out [12, 32] = rows [12, 2 pairs] * panel [pairs][32][2]. Rows of `rows` and `out` are so many numbers apart.
AVX512_BF16 void product(
    const bf16* rows, int64_t rows_apart, const bf16* panel, int64_t pairs, float* out, int64_t out_apart) {
  __m512 sums[kRows][2];
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
    sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  }
  for (int64_t p = 0; p < pairs; ++p) {
    const auto left = (__m512bh)_mm512_loadu_si512(panel + p * 2 * kColumns);
    const auto right = (__m512bh)_mm512_loadu_si512(panel + p * 2 * kColumns + 2 * kLanes);
#pragma GCC unroll 12
    for (int64_t i = 0; i < kRows; ++i) {
      int32_t pair;
      std::memcpy(&pair, rows + i * rows_apart + 2 * p, sizeof pair);
      const auto both = (__m512bh)_mm512_set1_epi32(pair);
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], both, left);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], both, right);
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
    _mm512_storeu_ps(out + i * out_apart, sums[i][0]);
    _mm512_storeu_ps(out + i * out_apart + kLanes, sums[i][1]);
  }
}

// 2^x with a relative error of about 1e-7: a polynomial for the fraction (Cephes, exp2f), an exponent for the rest.
AVX512_BF16 inline __attribute__((always_inline)) __m512 exp2_of(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 fraction = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(1.535336188e-4f);
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(1.339887440e-3f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(9.618437358e-3f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(5.550332471e-2f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(2.402264791e-1f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(6.931472029e-1f));
  y = _mm512_fmadd_ps(y, fraction, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, whole);
}

// weights[j] = 2^(factor (scores[j] - max scores)) for the `padded` scores, of which the first `size` count; the others
// become 0. Returns the sum of the weights.
AVX512_BF16 float exponentials(const float* scores, int64_t size, int64_t padded, float factor, bf16* weights) {
  const auto valid = [size](int64_t j) {
    const int64_t left = std::clamp<int64_t>(size - j, 0, kLanes);
    return static_cast<__mmask16>((1u << left) - 1);
  };
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < padded; j += kLanes) {
    most = _mm512_mask_max_ps(most, valid(j), most, _mm512_loadu_ps(scores + j));
  }
  const __m512 scale = _mm512_set1_ps(factor);
  const __m512 shift = _mm512_set1_ps(_mm512_reduce_max_ps(most) * factor);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < padded; j += kLanes) {
    const __m512 power = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + j), scale, shift));
    const __m512 weight = _mm512_maskz_mov_ps(valid(j), power);
    sum = _mm512_add_ps(sum, weight);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + j), (__m256i)_mm512_cvtneps_pbh(weight));
  }
  return _mm512_reduce_add_ps(sum);
}

// out [width] = sums / total
AVX512_BF16 void divide(const float* sums, float total, int64_t width, bf16* out) {
  for (int64_t j = 0; j < width; j += kLanes) {
    const auto mask = static_cast<__mmask16>((1u << std::min(width - j, kLanes)) - 1);
    const __m512 row = _mm512_div_ps(_mm512_loadu_ps(sums + j), _mm512_set1_ps(total));
    _mm256_mask_storeu_epi16(out + j, mask, (__m256i)_mm512_cvtneps_pbh(row));
  }
}

// What a thread computes in; it grows to the largest sizes seen.
struct Scratch {
  void fit(int64_t tokens, int64_t width) {
    queries.assign(kRows * width, 0);
    scores.resize(kRows * padded(tokens));
    weights.assign(kRows * padded(tokens), 0);
    mixed.resize(kRows * padded(width));
  }
  std::vector<bf16> queries, weights;
  std::vector<float> scores, mixed;
};

// Packed keys and values of an image's head.
struct Panels {
  const bf16 *keys, *values;
  int64_t tokens, width;
};

// Attention of up to 12 queries, `stride` apart; rows of `out` are `out_stride` apart.
void attend(
    const bf16* queries, int64_t stride, int64_t count, const Panels& panels, Scratch& s, bf16* out,
    int64_t out_stride) {
  const int64_t keys = padded(panels.tokens), width = panels.width, columns = padded(width);
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(queries + i * stride, width, s.queries.data() + i * width);
  }
  for (int64_t j = 0; j < keys; j += kColumns) {
    product(s.queries.data(), width, panels.keys + j * width, width / 2, s.scores.data() + j, keys);
  }
  const auto factor = static_cast<float>(M_LOG2E / std::sqrt(static_cast<double>(width)));
  float totals[kRows];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = i * keys;
    totals[i] = exponentials(s.scores.data() + row, panels.tokens, keys, factor, s.weights.data() + row);
  }
  for (int64_t j = 0; j < columns; j += kColumns) {
    product(s.weights.data(), keys, panels.values + j * keys, keys / 2, s.mixed.data() + j, columns);
  }
  for (int64_t i = 0; i < count; ++i) {
    divide(s.mixed.data() + i * columns, totals[i], width, out + i * out_stride);
  }
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  const int64_t images = q.size(0), heads = q.size(1), queries = q.size(2), width = q.size(3);
  const int64_t tokens = k.size(2), keys_size = padded(tokens) * width, values_size = padded(tokens) * padded(width);
  const Tensor panels = at::zeros({images * heads, keys_size + values_size}, q.options());
  const auto packed = static_cast<bf16*>(panels.data_ptr());
  const Heads from[] = {Heads(q), Heads(k), Heads(v)};
  in_parallel(images * heads, [&](int64_t i) {
    bf16* const keys = packed + i * (keys_size + values_size);
    pack_keys(from[1].at(i / heads, i % heads, 0), from[1].token, tokens, width, keys);
    pack_values(from[2].at(i / heads, i % heads, 0), from[2].token, tokens, width, keys + keys_size);
  });
  const Tensor out = at::empty({images, queries, heads * width}, q.options());
  const auto result = static_cast<bf16*>(out.data_ptr());
  const int64_t rows = kTiles * kRows, pieces = (queries + rows - 1) / rows;
  in_parallel(images * heads * pieces, [&](int64_t piece) {
    thread_local Scratch scratch;
    scratch.fit(tokens, width);
    const int64_t i = piece / pieces, image = i / heads, head = i % heads;
    const bf16* const keys = packed + i * (keys_size + values_size);
    const int64_t first = piece % pieces * rows, end = std::min(first + rows, queries);
    for (int64_t t = first; t < end; t += kRows) {
      bf16* const to = result + ((image * queries + t) * heads + head) * width;
      const Panels panels_of_head{keys, keys + keys_size, tokens, width};
      attend(
          from[0].at(image, head, t), from[0].token, std::min(kRows, end - t), panels_of_head, scratch, to,
          heads * width);
    }
  });
  return out;
}

void check(const Tensor& x, const Tensor& q, const char* name) {
  TORCH_CHECK(
      x.dim() == 4 && x.scalar_type() == at::kBFloat16 && x.device().is_cpu(), name,
      " must be [B, H, T, W] in bfloat16 on the CPU, got ", x.sizes(), " in ", x.scalar_type(), " on ", x.device());
  TORCH_CHECK(
      x.size(0) == q.size(0) && x.size(1) == q.size(1) && x.size(3) == q.size(3), name, " must fit queries ",
      q.sizes(), ", got ", x.sizes());
  TORCH_CHECK(x.size(2) > 0 && x.size(3) > 0 && x.size(3) % 2 == 0, name, " must have tokens of even width");
  TORCH_CHECK(x.stride(3) == 1, "the numbers of a token of ", name, " must be contiguous");
}
}  // namespace

const char* simdino_cpu_attention(tensor_ptr q, tensor_ptr k, tensor_ptr v, tensor_ptr* out) noexcept {
  return guarded([&] {
    check(*q, *q, "q");
    check(*k, *q, "k");
    check(*v, *q, "v");
    TORCH_CHECK(k->size(2) == v->size(2), "k and v must have equally many tokens");
    *out = new Tensor(attention(*q, *k, *v));
  });
}
#else
const char* simdino_cpu_attention(tensor_ptr, tensor_ptr, tensor_ptr, tensor_ptr*) noexcept {
  return "this processor does not multiply bfloat16 as x86 does";
}
#endif
