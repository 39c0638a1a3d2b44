// The element-wise work between the matrix products of a transformer block, each kernel one pass over
// memory. Compiled on the user's machine by NVRTC, for its GPU; without any header, so that NVRTC needs
// nothing but common.cu and this text. tests/kernels compiles the same text for the CPU and compares it with
// plain loops.
//
// Activations of a branch are bfloat16, the residual stream and all parameters are float. Sums are in
// float. Row r, column c of a matrix is at r * DIM + c. Pointers that may be null are marked with `?`.
//
// DIM, a multiple of 4, is the width of the residual stream.

#define CHUNK 4  // columns that a lane takes at once
#define CHUNKS ((DIM + LANES * CHUNK - 1) / (LANES * CHUNK))
#define WARPS 4  // of a block that takes a row a warp

__device__ inline float sum_of_warp(float value) {
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(EVERY_LANE, value, distance);
  return value;
}

__device__ inline float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ inline void store4(float* to, const float* v) {
  *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
// Four bfloat16 as floats.
__device__ inline float4 load4(const u16* from) {
  const uint2 pairs = *reinterpret_cast<const uint2*>(from);
  return make_float4(low_bf16(pairs.x), high_bf16(pairs.x), low_bf16(pairs.y), high_bf16(pairs.y));
}
__device__ inline void store4(u16* to, const float* v) {
  *reinterpret_cast<uint2*>(to) = make_uint2(to_bf16_pair(v[0], v[1]), to_bf16_pair(v[2], v[3]));
}
__device__ inline void unpack(float4 v, float* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// out = x + factor[row / rows_per_factor] * gamma * (branch + bias), and normed = LayerNorm(out) of
// weight and shift, with the mean and the inverse standard deviation of each row.
extern "C" __global__ void __launch_bounds__(LANES * WARPS) add_norm_forward(
    const float* __restrict__ x, const u16* __restrict__ branch /*?*/,
    const float* __restrict__ bias /*?*/, const float* __restrict__ gamma /*?*/,
    const float* __restrict__ factor /*?*/, u32 rows_per_factor, const float* __restrict__ weight,
    const float* __restrict__ shift, float eps, u32 rows, float* __restrict__ out /*?*/,
    u16* __restrict__ normed, float* __restrict__ means, float* __restrict__ inverses) {
  const u32 lane = threadIdx.x % LANES;
  for (u32 row = blockIdx.x * WARPS + threadIdx.x / LANES; row < rows; row += gridDim.x * WARPS) {
    const u64 start = static_cast<u64>(row) * DIM;
    const float scale = branch && factor ? factor[row / rows_per_factor] : 1.0f;
    float v[CHUNKS][CHUNK];
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      unpack(load4(x + start + column), v[i]);
      if (branch && scale != 0.0f) {
        float b[CHUNK], one[CHUNK];
        unpack(load4(branch + start + column), b);
        if (bias) {
          unpack(load4(bias + column), one);
#pragma unroll
          for (u32 j = 0; j < CHUNK; ++j) b[j] += one[j];
        }
        if (gamma) {
          unpack(load4(gamma + column), one);
#pragma unroll
          for (u32 j = 0; j < CHUNK; ++j) b[j] *= one[j];
        }
#pragma unroll
        for (u32 j = 0; j < CHUNK; ++j) v[i][j] += scale * b[j];
      }
      if (out) store4(out + start + column, v[i]);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) sum += v[i][j];
    }
    const float mean = sum_of_warp(sum) / DIM;
    float squares = 0.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      if ((i * LANES + lane) * CHUNK >= DIM) continue;
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) squares += (v[i][j] - mean) * (v[i][j] - mean);
    }
    const float inverse = 1.0f / sqrtf(sum_of_warp(squares) / DIM + eps);
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      float w[CHUNK], s[CHUNK], n[CHUNK];
      unpack(load4(weight + column), w);
      unpack(load4(shift + column), s);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) n[j] = (v[i][j] - mean) * inverse * w[j] + s[j];
      store4(normed + start + column, n);
    }
    if (lane == 0) {
      means[row] = mean;
      inverses[row] = inverse;
    }
  }
}

// Sums over the rows of a block, in a fixed order: `mine` of each warp after the other.
__device__ inline void sum_of_block(
    const float (&mine)[CHUNKS][CHUNK], float* shared, float* to, u32 warp, u32 lane) {
  for (u32 turn = 0; turn < WARPS; ++turn) {
    if (turn == warp) {
#pragma unroll
      for (u32 i = 0; i < CHUNKS; ++i) {
        const u32 column = (i * LANES + lane) * CHUNK;
        if (column >= DIM) continue;
#pragma unroll
        for (u32 j = 0; j < CHUNK; ++j)
          shared[column + j] = (turn == 0 ? 0.0f : shared[column + j]) + mine[i][j];
      }
    }
    __syncthreads();
  }
  for (u32 column = threadIdx.x; column < DIM; column += LANES * WARPS) to[column] = shared[column];
  __syncthreads();
}

// Gradients of add_norm_forward. `d_out` is what arrives for `out`. Writes the gradient of x, and of the
// branch where there is one; of the parameters the sums over the rows of each block, `parts`
// [blocks, 4, DIM]: weight, shift, bias, gamma, the last two only where there is a branch, a gamma.
template <bool HAS_BRANCH, bool HAS_GAMMA>
__device__ inline void add_norm_backward(
    const u16* __restrict__ d_normed, const float* __restrict__ d_out /*?*/,
    const float* __restrict__ out, const float* __restrict__ means,
    const float* __restrict__ inverses, const float* __restrict__ weight,
    const u16* __restrict__ branch /*?*/, const float* __restrict__ bias /*?*/,
    const float* __restrict__ gamma /*?*/, const float* __restrict__ factor /*?*/,
    u32 rows_per_factor, u32 rows, float* __restrict__ d_x, u16* __restrict__ d_branch /*?*/,
    float* __restrict__ parts) {
  __shared__ float shared[DIM];
  const u32 lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  float d_weight[CHUNKS][CHUNK] = {}, d_shift[CHUNKS][CHUNK] = {};
  float d_bias[HAS_BRANCH ? CHUNKS : 1][CHUNK] = {}, d_gamma[HAS_GAMMA ? CHUNKS : 1][CHUNK] = {};
  for (u32 row = blockIdx.x * WARPS + warp; row < rows; row += gridDim.x * WARPS) {
    const u64 start = static_cast<u64>(row) * DIM;
    const float mean = means[row], inverse = inverses[row];
    float g[CHUNKS][CHUNK], hat[CHUNKS][CHUNK];  // the gradient of hat, and hat = (out - mean) / deviation
    float sum = 0.0f, product = 0.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      float w[CHUNK];
      unpack(load4(d_normed + start + column), g[i]);
      unpack(load4(out + start + column), hat[i]);
      unpack(load4(weight + column), w);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) {
        hat[i][j] = (hat[i][j] - mean) * inverse;
        d_weight[i][j] += g[i][j] * hat[i][j];
        d_shift[i][j] += g[i][j];
        g[i][j] *= w[j];
        sum += g[i][j];
        product += g[i][j] * hat[i][j];
      }
    }
    sum = sum_of_warp(sum) / DIM;
    product = sum_of_warp(product) / DIM;
    const float scale = HAS_BRANCH && factor ? factor[row / rows_per_factor] : 1.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      float d[CHUNK] = {};
      if (d_out) unpack(load4(d_out + start + column), d);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) d[j] += (g[i][j] - sum - hat[i][j] * product) * inverse;
      store4(d_x + start + column, d);
      if (!HAS_BRANCH) continue;
      if (HAS_GAMMA) {
        float b[CHUNK], one[CHUNK] = {};
        unpack(load4(branch + start + column), b);
        if (bias) unpack(load4(bias + column), one);
#pragma unroll
        for (u32 j = 0; j < CHUNK; ++j)
          d_gamma[HAS_GAMMA ? i : 0][j] += scale == 0.0f ? 0.0f : scale * d[j] * (b[j] + one[j]);
        unpack(load4(gamma + column), one);
#pragma unroll
        for (u32 j = 0; j < CHUNK; ++j) d[j] *= one[j];
      }
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) {
        d[j] = scale == 0.0f ? 0.0f : scale * d[j];
        d_bias[HAS_BRANCH ? i : 0][j] += d[j];
      }
      store4(d_branch + start + column, d);
    }
  }
  float* to = parts + static_cast<u64>(blockIdx.x) * 4 * DIM;
  sum_of_block(d_weight, shared, to, warp, lane);
  sum_of_block(d_shift, shared, to + DIM, warp, lane);
  if constexpr (HAS_BRANCH) sum_of_block(d_bias, shared, to + 2 * DIM, warp, lane);
  if constexpr (HAS_GAMMA) sum_of_block(d_gamma, shared, to + 3 * DIM, warp, lane);
}

// The last argument: blocks that a processor has registers for at once.
#define ADD_NORM_BACKWARD(NAME, HAS_BRANCH, HAS_GAMMA, BLOCKS)                                      \
  extern "C" __global__ void __launch_bounds__(LANES * WARPS, BLOCKS) NAME(                         \
      const u16* d_normed, const float* d_out, const float* out, const float* means,                \
      const float* inverses, const float* weight, const u16* branch, const float* bias,             \
      const float* gamma, const float* factor, u32 rows_per_factor, u32 rows, float* d_x,           \
      u16* d_branch, float* parts) {                                                                \
    add_norm_backward<HAS_BRANCH, HAS_GAMMA>(                                                       \
        d_normed, d_out, out, means, inverses, weight, branch, bias, gamma, factor,                 \
        rows_per_factor, rows, d_x, d_branch, parts);                                               \
  }
#define PLAIN_BLOCKS (DIM <= 384 ? 5 : DIM <= 768 ? 3 : 2)
ADD_NORM_BACKWARD(norm_backward, false, false, PLAIN_BLOCKS)
ADD_NORM_BACKWARD(add_norm_backward_plain, true, false, PLAIN_BLOCKS)
ADD_NORM_BACKWARD(add_norm_backward_gamma, true, true, (DIM <= 384 ? 4 : 2))

// to[c] = sum over p of parts[p * stride + c], for `columns` columns, in a fixed order.
extern "C" __global__ void __launch_bounds__(256) sum_of_parts(
    const float* __restrict__ parts, u32 count, u32 stride, u32 columns, float* __restrict__ to) {
  __shared__ float sums[8][LANES];
  const u32 column = blockIdx.x * LANES + threadIdx.x % LANES, turn = threadIdx.x / LANES;
  float sum = 0.0f;
  if (column < columns)
    for (u32 part = turn; part < count; part += 8) sum += parts[static_cast<u64>(part) * stride + column];
  sums[turn][threadIdx.x % LANES] = sum;
  __syncthreads();
  if (turn != 0 || column >= columns) return;
  for (u32 other = 1; other < 8; ++other) sum += sums[other][threadIdx.x % LANES];
  to[column] = sum;
}

#define WIDE 8  // bfloat16 that a thread takes at once
struct Eight {
  float v[WIDE];
};
__device__ inline Eight load8(const u16* from) {
  const uint4 four = *reinterpret_cast<const uint4*>(from);
  return {{low_bf16(four.x), high_bf16(four.x), low_bf16(four.y), high_bf16(four.y), low_bf16(four.z),
           high_bf16(four.z), low_bf16(four.w), high_bf16(four.w)}};
}
__device__ inline void store8(u16* to, const Eight& e) {
  *reinterpret_cast<uint4*>(to) = make_uint4(
      to_bf16_pair(e.v[0], e.v[1]), to_bf16_pair(e.v[2], e.v[3]), to_bf16_pair(e.v[4], e.v[5]),
      to_bf16_pair(e.v[6], e.v[7]));
}

#define SQRT_HALF 0.70710678118654752f
#define INVERSE_SQRT_2_PI 0.39894228040143268f

// The normal distribution's function, and its density's exponential, exp(-z^2 / 2), which it needs anyway.
// The error function is that of Abramowitz and Stegun, 7.1.26, to 1.5e-7: it needs fewer instructions than
// erff, and what is stored has eight bits.
struct Normal {
  float below, exponential;
};
__device__ inline Normal normal_below(float z) {
  const float x = fabsf(z) * SQRT_HALF;
  const float exponential = fast_exp(-x * x);
  const float t = fast_divide(1.0f, 1.0f + 0.3275911f * x);
  const float polynomial =
      t * (0.254829592f +
           t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const float beyond = 0.5f * polynomial * exponential;  // on the far side of |z|
  return {z < 0.0f ? beyond : 1.0f - beyond, exponential};
}

// A block takes LANES * WIDE columns and every gridDim.y * 8-th row, a row a warp.
#define GELU_COLUMN ((blockIdx.x * LANES + threadIdx.x % LANES) * WIDE)
#define GELU_WARPS 8

// activated = GELU(x + bias), exact, of [rows, columns]; columns a multiple of 8.
extern "C" __global__ void __launch_bounds__(LANES * GELU_WARPS) bias_gelu_forward(
    const u16* __restrict__ x, const float* __restrict__ bias, u32 rows, u32 columns,
    u16* __restrict__ activated) {
  const u32 column = GELU_COLUMN;
  if (column >= columns) return;
  float b[WIDE];
#pragma unroll
  for (u32 j = 0; j < WIDE; ++j) b[j] = bias[column + j];
  for (u32 row = blockIdx.y * GELU_WARPS + threadIdx.x / LANES; row < rows;
       row += gridDim.y * GELU_WARPS) {
    const u64 at = static_cast<u64>(row) * columns + column;
    Eight e = load8(x + at);
#pragma unroll
    for (u32 j = 0; j < WIDE; ++j) {
      const float z = e.v[j] + b[j];
      e.v[j] = z * normal_below(z).below;
    }
    store8(activated + at, e);
  }
}

// The gradient of x of bias_gelu_forward, and of bias the sums over the rows of each block, `parts`
// [gridDim.y, columns].
extern "C" __global__ void __launch_bounds__(LANES * GELU_WARPS) bias_gelu_backward(
    const u16* __restrict__ d_activated, const u16* __restrict__ x, const float* __restrict__ bias,
    u32 rows, u32 columns, u16* __restrict__ d_x, float* __restrict__ parts) {
  __shared__ float sums[GELU_WARPS][LANES * WIDE];
  const u32 column = GELU_COLUMN, lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  float b[WIDE] = {}, sum[WIDE] = {};
  if (column < columns) {
#pragma unroll
    for (u32 j = 0; j < WIDE; ++j) b[j] = bias[column + j];
    for (u32 row = blockIdx.y * GELU_WARPS + warp; row < rows; row += gridDim.y * GELU_WARPS) {
      const u64 at = static_cast<u64>(row) * columns + column;
      Eight e = load8(x + at);
      const Eight d = load8(d_activated + at);
#pragma unroll
      for (u32 j = 0; j < WIDE; ++j) {
        const float z = e.v[j] + b[j];
        const Normal normal = normal_below(z);
        e.v[j] = d.v[j] * (normal.below + z * INVERSE_SQRT_2_PI * normal.exponential);
        sum[j] += e.v[j];
      }
      store8(d_x + at, e);
    }
  }
#pragma unroll
  for (u32 j = 0; j < WIDE; ++j) sums[warp][lane * WIDE + j] = sum[j];
  __syncthreads();
  const u32 own = threadIdx.x;  // LANES * GELU_WARPS threads for as many columns
  const u32 at = blockIdx.x * LANES * WIDE + own;
  if (at >= columns) return;
  float total = 0.0f;
  for (u32 other = 0; other < GELU_WARPS; ++other) total += sums[other][own];
  parts[static_cast<u64>(blockIdx.y) * columns + at] = total;
}

// The gradient of a projection to queries, keys, and values, [rows, 3 * DIM], from those of the three,
// each [batch, heads, tokens, width] with strides in elements and the last of them 1; and of its bias the
// sums over the rows of each block, `parts` [gridDim.y, 3 * DIM]. A row is a token of an image.
struct Strides {
  u64 batch, head, token;
};
extern "C" __global__ void __launch_bounds__(LANES * GELU_WARPS) merge_heads_backward(
    const u16* __restrict__ d_query, const u16* __restrict__ d_key, const u16* __restrict__ d_value,
    Strides query, Strides key, Strides value, u32 tokens, u32 width, u32 rows,
    u16* __restrict__ d_qkv, float* __restrict__ parts) {
  __shared__ float sums[GELU_WARPS][LANES * WIDE];
  const u32 column = GELU_COLUMN, lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  float sum[WIDE] = {};
  if (column < 3 * DIM) {
    const u32 part = column / DIM, within = column % DIM;
    const u16* from = part == 0 ? d_query : part == 1 ? d_key : d_value;
    const Strides strides = part == 0 ? query : part == 1 ? key : value;
    from += within / width * strides.head + within % width;
    for (u32 row = blockIdx.y * GELU_WARPS + warp; row < rows; row += gridDim.y * GELU_WARPS) {
      const u64 at = row / tokens * strides.batch + row % tokens * strides.token;
      const Eight e = load8(from + at);
#pragma unroll
      for (u32 j = 0; j < WIDE; ++j) sum[j] += e.v[j];
      store8(d_qkv + static_cast<u64>(row) * 3 * DIM + column, e);
    }
  }
#pragma unroll
  for (u32 j = 0; j < WIDE; ++j) sums[warp][lane * WIDE + j] = sum[j];
  __syncthreads();
  const u32 own = threadIdx.x, to = blockIdx.x * LANES * WIDE + own;
  if (to >= 3 * DIM) return;
  float total = 0.0f;
  for (u32 other = 0; other < GELU_WARPS; ++other) total += sums[other][own];
  parts[static_cast<u64>(blockIdx.y) * 3 * DIM + to] = total;
}
