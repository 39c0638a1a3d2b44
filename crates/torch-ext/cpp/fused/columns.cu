// Kernels whose threads each process a few columns of a matrix: GELU with its bias, the gradient of
// a projection to heads, and sums over rows. The last also adds up the partial sums of other
// kernels.

#ifndef SIMDINO_EMULATED
// Returns 2^x. Subnormal inputs and results become zero.
__device__ inline float two_to(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// The minimum and maximum of two numbers; NaN if either is.
__device__ inline float least(float x, float y) {
  float z;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
__device__ inline float most(float x, float y) {
  float z;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
#endif

#define WIDE 8  // columns that a thread processes at once
// A block processes LANES * WIDE columns. Each of its warps processes one row at a time, and then
// skips gridDim.y * COLUMN_WARPS rows ahead.
#define COLUMN_WARPS 8
#define OWN_COLUMN ((blockIdx.x * LANES + threadIdx.x % LANES) * WIDE)

struct Eight {
  float v[WIDE];
};
__device__ inline uint4 load8(const u16* from) { return *reinterpret_cast<const uint4*>(from); }
__device__ inline Eight unpacked(uint4 four) {
  return {{low_bf16(four.x), high_bf16(four.x), low_bf16(four.y), high_bf16(four.y), low_bf16(four.z),
           high_bf16(four.z), low_bf16(four.w), high_bf16(four.w)}};
}
__device__ inline void store8(u16* to, const Eight& e) {
  *reinterpret_cast<uint4*>(to) = make_uint4(
      to_bf16_pair(e.v[0], e.v[1]), to_bf16_pair(e.v[2], e.v[3]), to_bf16_pair(e.v[4], e.v[5]),
      to_bf16_pair(e.v[6], e.v[7]));
}

// Adds each thread's sums over the rows of a block, in a fixed order, and writes them to `parts`
// [gridDim.y, columns].
__device__ inline void sum_columns(const Eight& own, u32 columns, float* parts) {
  __shared__ float sums[COLUMN_WARPS][LANES * WIDE];
  const u32 lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
#pragma unroll
  for (u32 j = 0; j < WIDE; ++j) sums[warp][lane * WIDE + j] = own.v[j];
  __syncthreads();
  const u32 one = threadIdx.x, at = blockIdx.x * LANES * WIDE + one;  // one column per thread
  if (at >= columns) return;
  float total = 0.0f;
  for (u32 other = 0; other < COLUMN_WARPS; ++other) total += sums[other][one];
  parts[static_cast<u64>(blockIdx.y) * columns + at] = total;
}

// GELU is exact up to rounding. For a = |z|, the tail probability of the normal distribution is
// exp(-a^2 / 2) q(a), with a polynomial q whose relative error is at most 1.1e-4 up to a = 4, less
// than bfloat16's 2e-3. Values of a beyond 5.5, where the tail is 2e-8, are clamped to 5.5.
__device__ inline float bell(float a) { return two_to(a * -0.72134752044448170f * a); }
__device__ inline float up_to_end(float z) { return least(fabsf(z), 5.5f); }
// c[0] + a (c[1] + a (c[2] + ...)).
__device__ inline float polynomial(float a, const float (&c)[9]) {
  float sum = c[8];
#pragma unroll
  for (int i = 7; i >= 0; --i) sum = c[i] + a * sum;
  return sum;
}
__device__ inline float gelu(float z) {
  const float a = up_to_end(z);
  const float q = polynomial(
      a, {0.499944735f, -0.397332977f, 0.241555473f, -0.114561401f, 0.0405467098f, -0.010034766f,
          0.00160723991f, -0.000147903195f, 5.8971279e-06f});
  return most(z, 0.0f) - a * (bell(a) * q);
}
// The slope is the cumulative probability of z plus z times the density. For z < 0, that is
// exp(-a^2 / 2) (q(a) - a / sqrt(2 pi)), whose second factor is approximated by a polynomial p.
__device__ inline float gelu_slope(float z) {
  const float a = up_to_end(z);
  const float p = polynomial(
      a, {0.499979503f, -0.797224883f, 0.245888348f, -0.122083914f, 0.046927962f, -0.0129563909f,
          0.00234365669f, -0.000243961219f, 1.0955949e-05f});
  const float below = bell(a) * p;
  return z < 0.0f ? below : 1.0f - below;
}
__device__ inline Eight plus_bias(uint4 x, const Eight& bias) {
  Eight z = unpacked(x);
#pragma unroll
  for (u32 j = 0; j < WIDE; ++j) z.v[j] += bias.v[j];
  return z;
}
__device__ inline Eight load_bias(const float* from) {
  Eight bias;
#pragma unroll
  for (u32 j = 0; j < WIDE; ++j) bias.v[j] = from[j];
  return bias;
}

// activated = GELU(x + bias) for [rows, columns], where columns is a multiple of 8. The next row is
// loaded while the current one is computed.
extern "C" __global__ void __launch_bounds__(LANES * COLUMN_WARPS, 6) bias_gelu_forward(
    const u16* __restrict__ x, const float* __restrict__ bias, u32 rows, u32 columns,
    u16* __restrict__ activated) {
  const u32 column = OWN_COLUMN, step = gridDim.y * COLUMN_WARPS;
  u32 row = blockIdx.y * COLUMN_WARPS + threadIdx.x / LANES;
  if (column >= columns || row >= rows) return;
  const Eight b = load_bias(bias + column);
  const auto at = [&](u32 r) { return static_cast<u64>(r) * columns + column; };
  uint4 next = load8(x + at(row));
  for (; row < rows; row += step) {
    const uint4 now = next;
    if (row + step < rows) next = load8(x + at(row + step));
    Eight e = plus_bias(now, b);
#pragma unroll
    for (u32 j = 0; j < WIDE; ++j) e.v[j] = gelu(e.v[j]);
    store8(activated + at(row), e);
  }
}

// Writes the gradient of x of bias_gelu_forward and, for the bias, the sums over the rows of each
// block.
extern "C" __global__ void __launch_bounds__(LANES * COLUMN_WARPS, 4) bias_gelu_backward(
    const u16* __restrict__ d_activated, const u16* __restrict__ x, const float* __restrict__ bias,
    u32 rows, u32 columns, u16* __restrict__ d_x, float* __restrict__ parts) {
  const u32 column = OWN_COLUMN, step = gridDim.y * COLUMN_WARPS;
  Eight sum = {};
  u32 row = blockIdx.y * COLUMN_WARPS + threadIdx.x / LANES;
  if (column < columns && row < rows) {
    const Eight b = load_bias(bias + column);
    const auto at = [&](u32 r) { return static_cast<u64>(r) * columns + column; };
    uint4 next_x = load8(x + at(row)), next_d = load8(d_activated + at(row));
    for (; row < rows; row += step) {
      const uint4 now_x = next_x, now_d = next_d;
      if (row + step < rows) {
        next_x = load8(x + at(row + step));
        next_d = load8(d_activated + at(row + step));
      }
      Eight e = plus_bias(now_x, b);
      const Eight d = unpacked(now_d);
#pragma unroll
      for (u32 j = 0; j < WIDE; ++j) {
        e.v[j] = d.v[j] * gelu_slope(e.v[j]);
        sum.v[j] += e.v[j];
      }
      store8(d_x + at(row), e);
    }
  }
  sum_columns(sum, columns, parts);
}

// Writes the gradient of a projection to queries, keys, and values, [rows, 3 * DIM], from those of
// the three, and for its bias, the sums over the rows of each block. The gradients of the three are
// [batch, heads, tokens, width] with strides in elements, the last of which is 1. A row is a token
// of an image.
struct Strides {
  u64 batch, head, token;
};
extern "C" __global__ void __launch_bounds__(LANES * COLUMN_WARPS) merge_heads_backward(
    const u16* __restrict__ d_query, const u16* __restrict__ d_key, const u16* __restrict__ d_value,
    Strides query, Strides key, Strides value, u32 tokens, u32 width, u32 rows,
    u16* __restrict__ d_qkv, float* __restrict__ parts) {
  const u32 column = OWN_COLUMN, step = gridDim.y * COLUMN_WARPS;
  Eight sum = {};
  if (column < 3 * DIM) {
    const u32 part = column / DIM, within = column % DIM;
    const u16* from = part == 0 ? d_query : part == 1 ? d_key : d_value;
    const Strides strides = part == 0 ? query : part == 1 ? key : value;
    from += within / width * strides.head + within % width;
    for (u32 row = blockIdx.y * COLUMN_WARPS + threadIdx.x / LANES; row < rows; row += step) {
      const u64 at = row / tokens * strides.batch + row % tokens * strides.token;
      const Eight e = unpacked(load8(from + at));
#pragma unroll
      for (u32 j = 0; j < WIDE; ++j) sum.v[j] += e.v[j];
      store8(d_qkv + static_cast<u64>(row) * 3 * DIM + column, e);
    }
  }
  sum_columns(sum, 3 * DIM, parts);
}

// to[c] = sum over p of parts[p * stride + c], for `columns` columns, in a fixed order.
extern "C" __global__ void __launch_bounds__(LANES * SUM_WARPS) sum_of_parts(
    const float* __restrict__ parts, u32 count, u32 stride, u32 columns, float* __restrict__ to) {
  __shared__ float sums[SUM_WARPS][LANES];
  const u32 lane = threadIdx.x % LANES, column = blockIdx.x * LANES + lane, turn = threadIdx.x / LANES;
  float sum = 0.0f;
  if (column < columns) {
#pragma unroll 4
    for (u32 part = turn; part < count; part += SUM_WARPS) sum += parts[static_cast<u64>(part) * stride + column];
  }
  sums[turn][lane] = sum;
  __syncthreads();
  if (turn != 0 || column >= columns) return;
#pragma unroll
  for (u32 other = 1; other < SUM_WARPS; ++other) sum += sums[other][lane];
  to[column] = sum;
}
