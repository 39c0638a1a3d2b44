// Forward pass of add_norm. rows.cu precedes this source.
//
// Computes out = x + factor[image] * gamma * (branch + bias), normed = LayerNorm(out) with weight
// and shift, and the mean and inverse standard deviation of each row. `from` holds the places of
// images in branch, `to` those in normed.

// v += scale * gamma * (b + bias), for the columns from `column` on.
template <u32 CHUNK>
__device__ inline void add_branch(
    float (&v)[CHUNK], float (&b)[CHUNK], const float* __restrict__ bias /*?*/,
    const float* __restrict__ gamma /*?*/, float scale, u32 column) {
  float one[CHUNK];
  if (bias) {
    load(bias + column, one);
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) b[j] += one[j];
  }
  if (gamma) {
    load(gamma + column, one);
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) b[j] *= one[j];
  }
#pragma unroll
  for (u32 j = 0; j < CHUNK; ++j) v[j] += scale * b[j];
}

// Normalizes a row, of which each lane holds the columns `v`, and stores it as row `target` of
// normed.
template <class Columns, class Sums, u32 CHUNKS, u32 CHUNK>
__device__ inline void normalize(
    float (&v)[CHUNKS][CHUNK], const Columns& own, Sums& team_sums, u32 row, u32 target,
    const float* __restrict__ weight, const float* __restrict__ shift, float eps,
    u16* __restrict__ normed, float* __restrict__ means, float* __restrict__ inverses) {
  float sum[1] = {}, squares[1] = {};
#pragma unroll
  for (u32 i = 0; i < CHUNKS; ++i) {
    if (!own.has(i)) continue;
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) sum[0] += v[i][j];
  }
  team_sums.add(sum);
  const float mean = sum[0] * (1.0f / DIM);
#pragma unroll
  for (u32 i = 0; i < CHUNKS; ++i) {
    if (!own.has(i)) continue;
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) {
      v[i][j] -= mean;
      squares[0] += v[i][j] * v[i][j];
    }
  }
  team_sums.add(squares);
  const float inverse = inverse_root(squares[0] * (1.0f / DIM) + eps);
#pragma unroll
  for (u32 i = 0; i < CHUNKS; ++i) {
    if (!own.has(i)) continue;
    float w[CHUNK], s[CHUNK], n[CHUNK];
    load(weight + own.column(i), w);
    load(shift + own.column(i), s);
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) n[j] = v[i][j] * inverse * w[j] + s[j];
    store(normed + static_cast<u64>(target) * DIM + own.column(i), n);
  }
  if (own.lane == 0 && own.start == 0) {
    means[row] = mean;
    inverses[row] = inverse;
  }
}

// Each team of a block processes one row.
template <class Stream>
__device__ inline void add_norm(
    const Stream* __restrict__ x, const u16* __restrict__ branch /*?*/,
    const float* __restrict__ bias /*?*/, const float* __restrict__ gamma /*?*/,
    const float* __restrict__ factor /*?*/, const int* __restrict__ from /*?*/,
    const int* __restrict__ to /*?*/, u32 rows_per_image, const float* __restrict__ weight,
    const float* __restrict__ shift, float eps, u32 rows, Stream* __restrict__ out /*?*/,
    u16* __restrict__ normed, float* __restrict__ means, float* __restrict__ inverses) {
  constexpr u32 TEAM = norm_team(DIM), TEAMS = NORM_WARPS / TEAM;
  using Columns = Part<TEAM, 4>;
  __shared__ float shared_sums[2][NORM_WARPS][2];
  TeamSums<TEAM, NORM_WARPS> team_sums{shared_sums};
  const Columns own;
  const u32 row = blockIdx.x * TEAMS + own.team;
  if (row >= rows) return;
  const u64 start = static_cast<u64>(row) * DIM;
  const u32 source = branch ? row_in(from, row, rows_per_image) : NOWHERE;
  const u64 branch_start = static_cast<u64>(source) * DIM;
  const float scale = source == NOWHERE ? 0.0f : factor ? factor[row / rows_per_image] : 1.0f;
  float v[Columns::CHUNKS][Columns::CHUNK];
#pragma unroll
  for (u32 i = 0; i < Columns::CHUNKS; ++i) {
    if (!own.has(i)) continue;
    load(x + start + own.column(i), v[i]);
    if (scale != 0.0f) {
      float b[Columns::CHUNK];
      load(branch + branch_start + own.column(i), b);
      add_branch(v[i], b, bias, gamma, scale, own.column(i));
    }
    if (out) store_rounded(out + start + own.column(i), v[i]);
  }
  const u32 target = row_in(to, row, rows_per_image);
  if (target != NOWHERE)
    normalize(v, own, team_sums, row, target, weight, shift, eps, normed, means, inverses);
}

#define ADD_NORM_FORWARD(NAME, STREAM)                                                              \
  extern "C" __global__ void __launch_bounds__(LANES * NORM_WARPS) NAME(                            \
      const STREAM* x, const u16* branch, const float* bias, const float* gamma, const float* factor, \
      const int* from, const int* to, u32 rows_per_image, const float* weight, const float* shift,  \
      float eps, u32 rows, STREAM* out, u16* normed, float* means, float* inverses) {               \
    add_norm<STREAM>(                                                                               \
        x, branch, bias, gamma, factor, from, to, rows_per_image, weight, shift, eps, rows, out,    \
        normed, means, inverses);                                                                   \
  }
ADD_NORM_FORWARD(add_norm_forward_float, float)
ADD_NORM_FORWARD(add_norm_forward_bf16, u16)

// The same with rings, for a branch without gamma and a stream in bfloat16. In all other cases, the
// kernel above is faster.
template <bool HAS_BIAS>
__device__ inline void add_norm_by_rings(
    const u16* __restrict__ x, const u16* __restrict__ branch, const float* __restrict__ bias /*?*/,
    const float* __restrict__ factor /*?*/, const int* __restrict__ from /*?*/,
    const int* __restrict__ to /*?*/, u32 rows_per_image, const float* __restrict__ weight,
    const float* __restrict__ shift, float eps, u32 rows, u16* __restrict__ out,
    u16* __restrict__ normed, float* __restrict__ means, float* __restrict__ inverses,
    float (*shared_sums)[add_norm_ring(DIM).warps][2]) {
  constexpr NormRing RING = add_norm_ring(DIM);
  using Columns = Part<RING.team, at_once<u16>(columns_of_warp(DIM, RING.team))>;
  constexpr u32 CHUNKS = Columns::CHUNKS, CHUNK = Columns::CHUNK;
  constexpr u32 BRANCH = Columns::COLUMNS * 2, FACTOR = BRANCH + Columns::COLUMNS * 2;  // bytes in a slot
  TeamSums<RING.team, RING.warps> team_sums{shared_sums};
  const Columns own;
  const auto ask_for = [&](u32 row, unsigned char* slot) {
    copy_part(slot, x + static_cast<u64>(row) * DIM + own.start, own);
    const u32 source = row_in(from, row, rows_per_image);
    if (source == NOWHERE) return;
    copy_part(slot + BRANCH, branch + static_cast<u64>(source) * DIM + own.start, own);
    if (factor && own.lane == 0) copy4(slot + FACTOR, factor + row / rows_per_image);
  };
  const auto take = [&](u32 row, const unsigned char* slot) {
    const u16* own_x = reinterpret_cast<const u16*>(slot) + own.lane * CHUNK;
    const u16* own_branch = reinterpret_cast<const u16*>(slot + BRANCH) + own.lane * CHUNK;
    const bool placed = row_in(from, row, rows_per_image) != NOWHERE;
    const float scale = !placed ? 0.0f : factor ? *reinterpret_cast<const float*>(slot + FACTOR) : 1.0f;
    float v[CHUNKS][CHUNK];
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i)
      if (own.has(i)) load(own_x + i * Columns::STEP, v[i]);
    if (scale != 0.0f) {
#pragma unroll
      for (u32 i = 0; i < CHUNKS; ++i) {
        if (!own.has(i)) continue;
        float b[CHUNK];
        load(own_branch + i * Columns::STEP, b);
        add_branch(v[i], b, HAS_BIAS ? bias : nullptr, nullptr, scale, own.column(i));
      }
    }
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i)
      if (own.has(i)) store_rounded(out + static_cast<u64>(row) * DIM + own.column(i), v[i]);
    const u32 target = row_in(to, row, rows_per_image);
    if (target != NOWHERE)
      normalize(v, own, team_sums, row, target, weight, shift, eps, normed, means, inverses);
  };
  unsigned char* ring = ring_memory + own.warp * RING.stages * RING.slot_bytes;
  for_rows<RING.teams(), RING.stages, RING.slot_bytes>(own.team, ring, rows, ask_for, take);
}

extern "C" __global__ void __launch_bounds__(LANES * add_norm_ring(DIM).warps, add_norm_blocks(DIM))
    add_norm_forward_ring(
        const u16* x, const u16* branch, const float* bias, const float* factor, const int* from,
        const int* to, u32 rows_per_image, const float* weight, const float* shift, float eps,
        u32 rows, u16* out, u16* normed, float* means, float* inverses) {
  __shared__ float sums[2][add_norm_ring(DIM).warps][2];
  if (bias)
    add_norm_by_rings<true>(
        x, branch, bias, factor, from, to, rows_per_image, weight, shift, eps, rows, out, normed,
        means, inverses, sums);
  else
    add_norm_by_rings<false>(
        x, branch, bias, factor, from, to, rows_per_image, weight, shift, eps, rows, out, normed,
        means, inverses, sums);
}
