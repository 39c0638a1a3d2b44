// Backward pass of add_norm, with rings. norm.cu precedes this source.
//
// `d_out` is the incoming gradient of `out`. Writes the gradient of x and, if there is one, of the
// branch. For the parameters, writes the sums over the rows of each block to `parts` [blocks, 4,
// DIM]: weight, shift, bias, and gamma; the last two only if there is a branch or a gamma,
// respectively.

// A lane's sums over the rows that its team has processed.
template <class Columns>
using RowSums = float[Columns::CHUNKS][Columns::CHUNK];

// Writes the sums of a block, adding those of its teams in a fixed order.
template <u32 TEAMS, u32 THREADS, class Columns>
__device__ inline void sum_of_block(const RowSums<Columns>& mine, const Columns& own, float* shared, float* to) {
  __syncthreads();
#pragma unroll
  for (u32 i = 0; i < Columns::CHUNKS; ++i) {
    if (!own.has(i)) continue;
#pragma unroll
    for (u32 j = 0; j < Columns::CHUNK; j += 4)
      *reinterpret_cast<float4*>(shared + own.team * DIM + own.column(i) + j) =
          make_float4(mine[i][j], mine[i][j + 1], mine[i][j + 2], mine[i][j + 3]);
  }
  __syncthreads();
  for (u32 column = threadIdx.x; column < DIM; column += THREADS) {
    float sum = shared[column];
#pragma unroll
    for (u32 i = 1; i < TEAMS; ++i) sum += shared[i * DIM + column];
    to[column] = sum;
  }
}

template <class Stream, bool HAS_BRANCH, bool HAS_GAMMA>
struct AddNormBackward {
  static constexpr NormRing RING = add_norm_backward_ring(DIM, sizeof(Stream), HAS_GAMMA, SHARED_LIMIT);
  using Columns = Part<RING.team, at_once<Stream>(columns_of_warp(DIM, RING.team))>;
  using Sums = TeamSums<RING.team, RING.warps>;
  static constexpr u32 CHUNKS = Columns::CHUNKS, CHUNK = Columns::CHUNK;
  // Byte offsets within a slot, which holds d_normed, out, d_out, branch, and then mean, inverse,
  // and factor.
  static constexpr u32 OUT = Columns::COLUMNS * 2, D_OUT = OUT + Columns::COLUMNS * sizeof(Stream),
                       BRANCH = D_OUT + Columns::COLUMNS * sizeof(Stream),
                       NUMBERS = BRANCH + (HAS_GAMMA ? Columns::COLUMNS * 2 : 0);
  static_assert(RING.slot_bytes == NUMBERS + NUMBERS_BYTES, "as the host sees it");
  static_assert(RING.teams() * DIM * 4 <= RING.bytes(), "the sums of a block take the place of the rings");

  const u16* d_normed;
  const Stream *d_out /*?*/, *out;
  const float *means, *inverses, *weight;
  const u16* branch /*?*/;
  const float *bias /*?*/, *gamma /*?*/, *factor /*?*/;
  const int *from /*?*/, *to /*?*/;
  u32 rows_per_image;
  Stream* d_x;
  u16* d_branch /*?*/;
  Columns own{};
  RowSums<Columns> d_weight{}, d_shift{};
  float d_bias[HAS_BRANCH ? CHUNKS : 1][CHUNK] = {}, d_gamma[HAS_GAMMA ? CHUNKS : 1][CHUNK] = {};

  // What a lane keeps of a row between the two passes over it.
  struct Row {
    // The gradient of hat = (out - mean) / deviation.
    float g[CHUNKS][CHUNK], hat[CHUNKS][CHUNK];
    // The means of g and of g * hat, both divided by the deviation, and the inverse of the
    // deviation.
    float sum, product, inverse;
  };

  __device__ void ask_for(u32 row, unsigned char* slot) const {
    const u64 start = static_cast<u64>(row) * DIM + own.start;
    const u32 target = row_in(to, row, rows_per_image);
    if (target != NOWHERE) {
      copy_part(slot, d_normed + static_cast<u64>(target) * DIM + own.start, own);
      copy_part(slot + OUT, out + start, own);
      if (own.lane == 0) copy4(slot + NUMBERS, means + row);
      if (own.lane == 1) copy4(slot + NUMBERS + 4, inverses + row);
    }
    if (d_out) copy_part(slot + D_OUT, d_out + start, own);
    if (HAS_GAMMA) {
      const u32 source = row_in(from, row, rows_per_image);
      if (source != NOWHERE)
        copy_part(slot + BRANCH, branch + static_cast<u64>(source) * DIM + own.start, own);
    }
    if (HAS_BRANCH && factor && own.lane == 2) copy4(slot + NUMBERS + 8, factor + row / rows_per_image);
  }

  // Fills the d_out part of all slots with zeros, for when there is no d_out.
  __device__ void clear_d_out(unsigned char* ring) const {
    for (u32 i = 0; i < RING.stages; ++i)
      for (u32 at = own.lane * 16; at < Columns::COLUMNS * sizeof(Stream); at += LANES * 16)
        *reinterpret_cast<uint4*>(ring + i * RING.slot_bytes + D_OUT + at) = make_uint4(0, 0, 0, 0);
    __syncwarp();
  }

  // Returns this lane's values in chunk i of the row of type T at offset `bytes` of a slot.
  template <class T>
  __device__ const T* in(const unsigned char* slot, u32 bytes, u32 i) const {
    return reinterpret_cast<const T*>(slot + bytes) + own.lane * CHUNK + i * Columns::STEP;
  }

  __device__ void normed_row(Row& r, const unsigned char* slot, Sums& team_sums) {
    const float* numbers = reinterpret_cast<const float*>(slot + NUMBERS);
    const float mean = numbers[0], inverse = numbers[1];
    float sums[2] = {};
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      if (!own.has(i)) continue;
      float w[CHUNK];
      load(in<u16>(slot, 0, i), r.g[i]);
      load(in<Stream>(slot, OUT, i), r.hat[i]);
      load_read_only(weight + own.column(i), w);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) {
        r.hat[i][j] = (r.hat[i][j] - mean) * inverse;
        d_weight[i][j] += r.g[i][j] * r.hat[i][j];
        d_shift[i][j] += r.g[i][j];
        r.g[i][j] *= w[j];
        sums[0] += r.g[i][j];
        sums[1] += r.g[i][j] * r.hat[i][j];
      }
    }
    team_sums.add(sums);
    r.sum = sums[0] * (inverse * (1.0f / DIM));
    r.product = sums[1] * (inverse * (1.0f / DIM));
    r.inverse = inverse;
  }

  // Sets r for a row that was not normalized.
  __device__ void other_row(Row& r) const {
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) r.g[i][j] = r.hat[i][j] = 0.0f;
    r.sum = r.product = r.inverse = 0.0f;
  }

  // d_x = d_out + (g - mean(g) - hat * mean(g * hat)) / deviation, for chunk i.
  __device__ void gradient_of_x(const Row& r, const unsigned char* slot, u32 row, u32 i, float (&d)[CHUNK]) const {
    load(in<Stream>(slot, D_OUT, i), d);
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) d[j] += r.g[i][j] * r.inverse - r.sum - r.hat[i][j] * r.product;
    store(d_x + static_cast<u64>(row) * DIM + own.column(i), d);
  }

  // Turns the gradient of x, in `d`, into that of the branch.
  __device__ void gradient_of_branch(const unsigned char* slot, float scale, u32 i, float (&d)[CHUNK]) {
    if constexpr (HAS_GAMMA) {
      float b[CHUNK], one[CHUNK] = {};
      load(in<u16>(slot, BRANCH, i), b);
      if (bias) load(bias + own.column(i), one);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) d_gamma[i][j] += scale * d[j] * (b[j] + one[j]);
      load(gamma + own.column(i), one);
#pragma unroll
      for (u32 j = 0; j < CHUNK; ++j) d[j] *= one[j];
    }
#pragma unroll
    for (u32 j = 0; j < CHUNK; ++j) {
      d[j] *= scale;
      d_bias[HAS_BRANCH ? i : 0][j] += d[j];
    }
  }

  // For rows to which no branch was added: those without a place, and those with a factor of 0.
  __device__ void take_without_branch(const Row& r, const unsigned char* slot, u32 row, u32 source) const {
    const float zeros[CHUNK] = {};
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      if (!own.has(i)) continue;
      float d[CHUNK];
      gradient_of_x(r, slot, row, i, d);
      if (HAS_BRANCH && source != NOWHERE)
        store(d_branch + static_cast<u64>(source) * DIM + own.column(i), zeros);
    }
  }
  __device__ void take_with_branch(const Row& r, const unsigned char* slot, u32 row, u32 source, float scale) {
#pragma unroll
    for (u32 i = 0; i < CHUNKS; ++i) {
      if (!own.has(i)) continue;
      float d[CHUNK];
      gradient_of_x(r, slot, row, i, d);
      gradient_of_branch(slot, scale, i, d);
      if (d_branch) store(d_branch + static_cast<u64>(source) * DIM + own.column(i), d);
    }
  }

  __device__ void take(u32 row, const unsigned char* slot, Sums& team_sums) {
    Row r;
    row_in(to, row, rows_per_image) != NOWHERE ? normed_row(r, slot, team_sums) : other_row(r);
    const u32 source = HAS_BRANCH ? row_in(from, row, rows_per_image) : NOWHERE;
    const float scale = source == NOWHERE ? 0.0f
        : factor                          ? reinterpret_cast<const float*>(slot + NUMBERS)[2]
                                          : 1.0f;
    if (HAS_BRANCH && scale != 0.0f)
      take_with_branch(r, slot, row, source, scale);
    else
      take_without_branch(r, slot, row, source);
  }

  __device__ void run(u32 rows, float* parts, float (*shared_sums)[RING.warps][2]) {
    Sums team_sums{shared_sums};
    unsigned char* ring = ring_memory + own.warp * RING.stages * RING.slot_bytes;
    if (!d_out) clear_d_out(ring);
    for_rows<RING.teams(), RING.stages, RING.slot_bytes>(
        own.team, ring, rows, [&](u32 row, unsigned char* slot) { ask_for(row, slot); },
        [&](u32 row, const unsigned char* slot) { take(row, slot, team_sums); });
    const auto add_up = [&](const RowSums<Columns>& mine, u32 which) {
      sum_of_block<RING.teams(), LANES * RING.warps>(
          mine, own, reinterpret_cast<float*>(ring_memory),
          parts + (static_cast<u64>(blockIdx.x) * 4 + which) * DIM);
    };
    add_up(d_weight, 0);
    add_up(d_shift, 1);
    if constexpr (HAS_BRANCH) add_up(d_bias, 2);
    if constexpr (HAS_GAMMA) add_up(d_gamma, 3);
  }
};

// d_branch may be null for a branch without gamma, factor, and places if the stream is in bfloat16,
// because the gradient of the branch then equals d_x.
#define ADD_NORM_BACKWARD(NAME, STREAM, HAS_BRANCH, HAS_GAMMA)                                      \
  extern "C" __global__ void                                                                        \
  __launch_bounds__(LANES * (AddNormBackward<STREAM, HAS_BRANCH, HAS_GAMMA>::RING.warps), 1) NAME(  \
      const u16* d_normed, const STREAM* d_out, const STREAM* out, const float* means,              \
      const float* inverses, const float* weight, const u16* branch, const float* bias,             \
      const float* gamma, const float* factor, const int* from, const int* to, u32 rows_per_image,  \
      u32 rows, STREAM* d_x, u16* d_branch, float* parts) {                                         \
    using Backward = AddNormBackward<STREAM, HAS_BRANCH, HAS_GAMMA>;                                \
    __shared__ float sums[2][Backward::RING.warps][2];                                              \
    Backward backward{d_normed, d_out, out,  means, inverses,       weight, branch,  bias,          \
                      gamma,    factor, from, to,    rows_per_image, d_x,    d_branch};             \
    backward.run(rows, parts, sums);                                                                \
  }
#define ADD_NORM_BACKWARDS(KIND, STREAM)                                    \
  ADD_NORM_BACKWARD(norm_backward_##KIND, STREAM, false, false)             \
  ADD_NORM_BACKWARD(add_norm_backward_plain_##KIND, STREAM, true, false)    \
  ADD_NORM_BACKWARD(add_norm_backward_gamma_##KIND, STREAM, true, true)
ADD_NORM_BACKWARDS(float, float)
ADD_NORM_BACKWARDS(bf16, u16)
