// The element-wise work between the matrix products of a transformer block, each kernel one pass over
// memory. Compiled on the user's machine by NVRTC, for its GPU; without any header, so that NVRTC needs
// nothing but common.cu and this text. tests/kernels compiles the same text for the CPU and compares it with
// plain loops.
//
// Activations of a branch are bfloat16, all parameters are float, and the residual stream is one of both.
// Sums are in float. Row r, column c of a matrix is at r * DIM + c. Pointers that may be null are marked
// with `?`.
//
// DIM, a multiple of 4, is the width of the residual stream.

#define CHUNK 4  // columns that a lane takes at once
#define WARPS 4  // of a block that takes a row a team

// A team of warps takes a row together: a wide one would need more registers than a warp has.
#define FORWARD_TEAM (DIM > 1024 ? 2 : 1)
#define BACKWARD_TEAM (DIM > 512 ? 2 : 1)
// Chunks of a row of `warps` that each of their lanes takes.
#define CHUNKS_OF(warps) ((DIM + (warps) * LANES * CHUNK - 1) / ((warps) * LANES * CHUNK))

__device__ inline float sum_of_warp(float value) {
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(EVERY_LANE, value, distance);
  return value;
}

// Adds up the values of a team's threads. The warps of a team meet once a call: those that are late still
// read the sums of one call while the others write those of the next, elsewhere.
template <u32 TEAM>
struct TeamSums {
  float (*sums)[WARPS];  // [2][WARPS], shared
  u32 turn = 0;

  __device__ float of(float value) {
    value = sum_of_warp(value);
    if (TEAM == 1) return value;
    const u32 warp = threadIdx.x / LANES, first = warp / TEAM * TEAM;
    if (threadIdx.x % LANES == 0) sums[turn][warp] = value;
    wait_for_team(first / TEAM, TEAM * LANES);
    value = 0.0f;
#pragma unroll
    for (u32 i = 0; i < TEAM; ++i) value += sums[turn][first + i];
    turn = 1 - turn;
    return value;
  }
};

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
// Values as they will be read back after store4.
__device__ inline void round4(const float*, float*) {}
__device__ inline void round4(const u16*, float* v) {
  const u32 low = to_bf16_pair(v[0], v[1]), high = to_bf16_pair(v[2], v[3]);
  v[0] = low_bf16(low);
  v[1] = high_bf16(low);
  v[2] = low_bf16(high);
  v[3] = high_bf16(high);
}
__device__ inline void unpack(float4 v, float* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// Rows of an image in a matrix that holds some images only, in any order: image i is at places[i], and
// nowhere where that is negative. Without `places` it holds all of them.
#define NOWHERE 0xffffffffu
__device__ inline u32 row_in(const int* places /*?*/, u32 row, u32 rows_per_image) {
  if (!places) return row;
  const u32 image = row / rows_per_image;
  const int place = places[image];
  return place < 0 ? NOWHERE : place * rows_per_image + (row - image * rows_per_image);
}

// out = x + factor[image] * gamma * (branch + bias), and normed = LayerNorm(out) of weight and shift, with
// the mean and the inverse standard deviation of each row. `from` are the places of images in branch, `to`
// those in normed.
template <class Stream>
__device__ inline void add_norm(
    const Stream* __restrict__ x, const u16* __restrict__ branch /*?*/,
    const float* __restrict__ bias /*?*/, const float* __restrict__ gamma /*?*/,
    const float* __restrict__ factor /*?*/, const int* __restrict__ from /*?*/,
    const int* __restrict__ to /*?*/, u32 rows_per_image, const float* __restrict__ weight,
    const float* __restrict__ shift, float eps, u32 rows, Stream* __restrict__ out /*?*/,
    u16* __restrict__ normed, float* __restrict__ means, float* __restrict__ inverses) {
  constexpr u32 TEAM = FORWARD_TEAM, TEAMS = WARPS / TEAM, CHUNKS = CHUNKS_OF(TEAM);
  __shared__ float shared_sums[2][WARPS];
  TeamSums<TEAM> team_sums{shared_sums};
  const u32 lane = threadIdx.x % (TEAM * LANES), team = threadIdx.x / (TEAM * LANES);
  for (u32 row = blockIdx.x * TEAMS + team; row < rows; row += gridDim.x * TEAMS) {
    const u64 start = static_cast<u64>(row) * DIM;
    const u32 source = branch ? row_in(from, row, rows_per_image) : NOWHERE;
    const u64 branch_start = static_cast<u64>(source) * DIM;
    const float scale = source == NOWHERE ? 0.0f : factor ? factor[row / rows_per_image] : 1.0f;
    float v[CHUNKS][CHUNK];
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * TEAM * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      unpack(load4(x + start + column), v[i]);
      if (scale != 0.0f) {
        float b[CHUNK], one[CHUNK];
        unpack(load4(branch + branch_start + column), b);
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
        round4(x, v[i]);
      }
      if (out) store4(out + start + column, v[i]);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) sum += v[i][j];
    }
    const u32 target = row_in(to, row, rows_per_image);
    if (target == NOWHERE) continue;
    const u64 normed_start = static_cast<u64>(target) * DIM;
    const float mean = team_sums.of(sum) / DIM;
    float squares = 0.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      if ((i * TEAM * LANES + lane) * CHUNK >= DIM) continue;
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) squares += (v[i][j] - mean) * (v[i][j] - mean);
    }
    const float inverse = 1.0f / sqrtf(team_sums.of(squares) / DIM + eps);
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * TEAM * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      float w[CHUNK], s[CHUNK], n[CHUNK];
      unpack(load4(weight + column), w);
      unpack(load4(shift + column), s);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) n[j] = (v[i][j] - mean) * inverse * w[j] + s[j];
      store4(normed + normed_start + column, n);
    }
    if (lane == 0) {
      means[row] = mean;
      inverses[row] = inverse;
    }
  }
}

#define ADD_NORM_FORWARD(NAME, STREAM)                                                              \
  extern "C" __global__ void __launch_bounds__(LANES * WARPS) NAME(                                 \
      const STREAM* x, const u16* branch, const float* bias, const float* gamma, const float* factor, \
      const int* from, const int* to, u32 rows_per_image, const float* weight, const float* shift,  \
      float eps, u32 rows, STREAM* out, u16* normed, float* means, float* inverses) {               \
    add_norm<STREAM>(                                                                               \
        x, branch, bias, gamma, factor, from, to, rows_per_image, weight, shift, eps, rows, out,    \
        normed, means, inverses);                                                                   \
  }
ADD_NORM_FORWARD(add_norm_forward_float, float)
ADD_NORM_FORWARD(add_norm_forward_bf16, u16)

// Sums over the rows of a block, in a fixed order: `mine` of each team after the other.
template <u32 TEAM>
__device__ inline void sum_of_block(
    const float (&mine)[CHUNKS_OF(TEAM)][CHUNK], float* shared, float* to, u32 team, u32 lane) {
  for (u32 turn = 0; turn < WARPS / TEAM; ++turn) {
    if (turn == team) {
#pragma unroll
      for (u32 i = 0; i < CHUNKS_OF(TEAM); ++i) {
        const u32 column = (i * TEAM * LANES + lane) * CHUNK;
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

// Gradients of add_norm. `d_out` is what arrives for `out`. Writes the gradient of x, and of the branch
// where there is one; of the parameters the sums over the rows of each block, `parts` [blocks, 4, DIM]:
// weight, shift, bias, gamma, the last two only where there is a branch, a gamma.
template <class Stream, bool HAS_BRANCH, bool HAS_GAMMA>
__device__ inline void add_norm_backward(
    const u16* __restrict__ d_normed, const Stream* __restrict__ d_out /*?*/,
    const Stream* __restrict__ out, const float* __restrict__ means,
    const float* __restrict__ inverses, const float* __restrict__ weight,
    const u16* __restrict__ branch /*?*/, const float* __restrict__ bias /*?*/,
    const float* __restrict__ gamma /*?*/, const float* __restrict__ factor /*?*/,
    const int* __restrict__ from /*?*/, const int* __restrict__ to /*?*/, u32 rows_per_image, u32 rows,
    Stream* __restrict__ d_x, u16* __restrict__ d_branch /*?*/, float* __restrict__ parts) {
  constexpr u32 TEAM = BACKWARD_TEAM, TEAMS = WARPS / TEAM, CHUNKS = CHUNKS_OF(TEAM);
  __shared__ float shared[DIM], shared_sums[2][WARPS];
  TeamSums<TEAM> team_sums{shared_sums};
  const u32 lane = threadIdx.x % (TEAM * LANES), team = threadIdx.x / (TEAM * LANES);
  float d_weight[CHUNKS][CHUNK] = {}, d_shift[CHUNKS][CHUNK] = {};
  float d_bias[HAS_BRANCH ? CHUNKS : 1][CHUNK] = {}, d_gamma[HAS_GAMMA ? CHUNKS : 1][CHUNK] = {};
  for (u32 row = blockIdx.x * TEAMS + team; row < rows; row += gridDim.x * TEAMS) {
    const u64 start = static_cast<u64>(row) * DIM;
    const u32 target = row_in(to, row, rows_per_image);
    // Of the gradient of hat, the sum and the sum of its products with hat = (out - mean) / deviation.
    float g[CHUNKS][CHUNK] = {}, hat[CHUNKS][CHUNK] = {};
    float sum = 0.0f, product = 0.0f, inverse = 0.0f;
    if (target != NOWHERE) {
      const u64 normed_start = static_cast<u64>(target) * DIM;
      const float mean = means[row];
      inverse = inverses[row];
#pragma unroll
      for (u32 i = 0; i < CHUNKS; ++i) {
        const u32 column = (i * TEAM * LANES + lane) * CHUNK;
        if (column >= DIM) continue;
        float w[CHUNK];
        unpack(load4(d_normed + normed_start + column), g[i]);
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
      sum = team_sums.of(sum) / DIM;
      product = team_sums.of(product) / DIM;
    }
    const u32 source = HAS_BRANCH ? row_in(from, row, rows_per_image) : NOWHERE;
    const u64 branch_start = static_cast<u64>(source) * DIM;
    const float scale = HAS_BRANCH && factor ? factor[row / rows_per_image] : 1.0f;
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      const u32 column = (i * TEAM * LANES + lane) * CHUNK;
      if (column >= DIM) continue;
      float d[CHUNK] = {};
      if (d_out) unpack(load4(d_out + start + column), d);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) d[j] += (g[i][j] - sum - hat[i][j] * product) * inverse;
      store4(d_x + start + column, d);
      if (!HAS_BRANCH || source == NOWHERE) continue;
      if (HAS_GAMMA) {
        float b[CHUNK], one[CHUNK] = {};
        unpack(load4(branch + branch_start + column), b);
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
      store4(d_branch + branch_start + column, d);
    }
  }
  float* sums = parts + static_cast<u64>(blockIdx.x) * 4 * DIM;
  sum_of_block<TEAM>(d_weight, shared, sums, team, lane);
  sum_of_block<TEAM>(d_shift, shared, sums + DIM, team, lane);
  if constexpr (HAS_BRANCH) sum_of_block<TEAM>(d_bias, shared, sums + 2 * DIM, team, lane);
  if constexpr (HAS_GAMMA) sum_of_block<TEAM>(d_gamma, shared, sums + 3 * DIM, team, lane);
}

// The last argument: blocks that a processor has registers for at once.
#define ADD_NORM_BACKWARD(NAME, STREAM, HAS_BRANCH, HAS_GAMMA, BLOCKS)                              \
  extern "C" __global__ void __launch_bounds__(LANES * WARPS, BLOCKS) NAME(                         \
      const u16* d_normed, const STREAM* d_out, const STREAM* out, const float* means,              \
      const float* inverses, const float* weight, const u16* branch, const float* bias,             \
      const float* gamma, const float* factor, const int* from, const int* to, u32 rows_per_image,  \
      u32 rows, STREAM* d_x, u16* d_branch, float* parts) {                                         \
    add_norm_backward<STREAM, HAS_BRANCH, HAS_GAMMA>(                                               \
        d_normed, d_out, out, means, inverses, weight, branch, bias, gamma, factor, from, to,       \
        rows_per_image, rows, d_x, d_branch, parts);                                                \
  }
#define BACKWARD_CHUNKS CHUNKS_OF(BACKWARD_TEAM)
#define PLAIN_BLOCKS (BACKWARD_CHUNKS <= 3 ? 5 : BACKWARD_CHUNKS <= 4 ? 4 : 3)
#define GAMMA_BLOCKS (BACKWARD_CHUNKS <= 3 ? 4 : BACKWARD_CHUNKS <= 4 ? 3 : 2)
#define ADD_NORM_BACKWARDS(KIND, STREAM)                                                \
  ADD_NORM_BACKWARD(norm_backward_##KIND, STREAM, false, false, PLAIN_BLOCKS)           \
  ADD_NORM_BACKWARD(add_norm_backward_plain_##KIND, STREAM, true, false, PLAIN_BLOCKS)  \
  ADD_NORM_BACKWARD(add_norm_backward_gamma_##KIND, STREAM, true, true, GAMMA_BLOCKS)
ADD_NORM_BACKWARDS(float, float)
ADD_NORM_BACKWARDS(bf16, u16)

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
