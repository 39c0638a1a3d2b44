// The backward pass of attention. attention.cu precedes this source.
//
// With the probabilities P, dP = dO V^T, delta = rowsum(dO * O), and dS = P * (dP - delta):
//   dV = P^T dO,  dQ = scale dS K,  dK = scale dS^T Q.
// A warp processes tiles of queries, for dQ, and then tiles of keys, for dV and dK, recomputing P
// and dS for the latter. This takes two more products than accumulating into other warps' results,
// but no two warps write to the same memory, so that none waits, and the order of sums is fixed.

// The four matrices in shared memory.
struct Operands {
  u32 queries, keys, values, d_out;
};

// Returns the probability of a score, given the base-2 logarithm of its row's sum of exponentials.
__device__ inline float probability(float score, float log2) {
  return power_of_two(score * SCALE_LOG2 - log2);
}

// Computes dQ of a tile of queries, without the scale.
__device__ inline void query_gradients(
    Sums& d_query, u32 tile, const Operands& m, const float* logs, const float* deltas, u32 tokens,
    const Lane& lane) {
  Tile query, d_out;
  load_tile(query, m.queries + tile * TILE_BYTES, lane);
  load_tile(d_out, m.d_out + tile * TILE_BYTES, lane);
  const u32 row = tile * TILE + lane.index / 4;
  const float log2[2] = {logs[row], logs[row + 8]}, delta[2] = {deltas[row], deltas[row + 8]};
#pragma unroll 1
  for (u32 other = 0; other < TILES; ++other) {
    Scores p, d;
    multiply_rows(p, query, m.keys + other * TILE_BYTES, lane);
    multiply_rows(d, d_out, m.values + other * TILE_BYTES, lane);
    if (other == TILES - 1) mask_keys(p, tokens, lane.index);
#pragma unroll
    for (u32 half = 0; half < 2; ++half)
#pragma unroll
      for (u32 i = 0; i < 4; ++i)
        d[half][i] = probability(p[half][i], log2[i / 2]) * (d[half][i] - delta[i / 2]);
    u32 ds[4];
    to_operand(ds, d);
    add_product(d_query, ds, m.keys + other * TILE_BYTES, lane);
  }
}

// Computes dK, without the scale, and dV of a tile of keys. Scores are transposed: each row belongs
// to a key.
__device__ inline void key_gradients(
    Sums& d_key, Sums& d_value, u32 tile, const Operands& m, const float* logs, const float* deltas,
    const Lane& lane) {
  Tile key, value;
  load_tile(key, m.keys + tile * TILE_BYTES, lane);
  load_tile(value, m.values + tile * TILE_BYTES, lane);
#pragma unroll 1
  for (u32 other = 0; other < TILES; ++other) {
    Scores p, d;
    multiply_rows(p, key, m.queries + other * TILE_BYTES, lane);
    multiply_rows(d, value, m.d_out + other * TILE_BYTES, lane);
#pragma unroll
    for (u32 half = 0; half < 2; ++half)
#pragma unroll
      for (u32 i = 0; i < 4; ++i) {
        const u32 query = other * TILE + half * 8 + lane.index % 4 * 2 + i % 2;
        p[half][i] = probability(p[half][i], logs[query]);
        d[half][i] = p[half][i] * (d[half][i] - deltas[query]);
      }
    u32 a[4];
    to_operand(a, p);
    add_product(d_value, a, m.d_out + other * TILE_BYTES, lane);
    to_operand(a, d);
    add_product(d_key, a, m.queries + other * TILE_BYTES, lane);
  }
}

// Number of pieces of a matrix that each thread of the backward pass handles.
#define THREADS (LANES * BACKWARD_WARPS)
#define PIECES_OF_THREAD ((ROWS * EIGHTS + THREADS - 1) / THREADS)

__device__ inline void add_products(float& product, float (&sums)[8], uint4 a, uint4 b) {
  const u32 of_a[4] = {a.x, a.y, a.z, a.w}, of_b[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    product += low_bf16(of_a[i]) * low_bf16(of_b[i]) + high_bf16(of_a[i]) * high_bf16(of_b[i]);
    sums[2 * i] += low_bf16(of_a[i]);
    sums[2 * i + 1] += high_bf16(of_a[i]);
  }
}

// Computes rowsum(dO * O) of all rows, and the sums of dO over the rows that this warp handles,
// `sums` [WIDTH]. The output is loaded before waiting for the copies to shared memory, to overlap
// both.
__device__ inline void delta_of_rows(
    const u16* out, const Head& head, const unsigned char* d_out, float* deltas, float* sums, u32 lane) {
  uint4 o[PIECES_OF_THREAD];
#pragma unroll
  for (u32 i = 0; i < PIECES_OF_THREAD; ++i) {
    const u32 at = threadIdx.x + i * THREADS, row = at / EIGHTS;
    o[i] = make_uint4(0, 0, 0, 0);
    if (row < head.tokens)
      o[i] = *reinterpret_cast<const uint4*>(
          out + head.first + (row * head.stride + at % EIGHTS * 8));
  }
  await_copies();  // no barrier is needed, because a thread reads only what it copied itself
  float sum[8] = {};
#pragma unroll
  for (u32 i = 0; i < PIECES_OF_THREAD; ++i) {
    const u32 at = threadIdx.x + i * THREADS, row = at / EIGHTS;
    uint4 d = make_uint4(0, 0, 0, 0);
    if (row < ROWS) d = *reinterpret_cast<const uint4*>(d_out + place(row, at % EIGHTS));
    float product = 0.0f;
    add_products(product, sum, d, o[i]);
    product = sum_of_four(product);
    product += __shfl_xor_sync(EVERY_LANE, product, 4);
    if (row < ROWS && lane % EIGHTS == 0) deltas[row] = product;
  }
#pragma unroll
  for (u32 i = 0; i < 8; ++i) {
    sum[i] += __shfl_xor_sync(EVERY_LANE, sum[i], 8);
    sum[i] += __shfl_xor_sync(EVERY_LANE, sum[i], 16);
    if (lane < EIGHTS) sums[lane * 8 + i] = sum[i];
  }
}

// Adds each lane's sums to those over all rows of a warp's tiles, `to` [WIDTH].
__device__ inline void sum_of_rows(float (&of_lane)[EIGHTS][2], float* to, u32 lane) {
#pragma unroll
  for (u32 eighth = 0; eighth < EIGHTS; ++eighth)
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
      float sum = of_lane[eighth][i];
#pragma unroll
      for (u32 distance = 4; distance < LANES; distance *= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, distance);
      if (lane < 4) to[eighth * 8 + lane * 2 + i] = sum;
    }
}

// Computes the gradient of qkv [images, tokens, 3 D] of attention_forward, with one block per image
// and head. Also writes the bias gradients of queries and values, summed over the tokens of each
// image, to `parts` [images, 2, D].
//
// The bias of values is multiplied by probabilities, which sum to 1, so its gradient is the sum of
// dO. The bias of keys adds the same number to all scores of a row, which changes no probability,
// so its gradient is 0, and nothing is summed.
extern "C" __global__ void __launch_bounds__(THREADS, backward_blocks(TILES)) attention_backward(
    const u16* __restrict__ qkv, const u16* __restrict__ out, const u16* __restrict__ d_out,
    const float* __restrict__ log_sums, u32 tokens, u32 heads, u16* __restrict__ d_qkv,
    float* __restrict__ parts /*?*/) {
  const Lane lane = lane_of(threadIdx.x % LANES);
  const u32 warp = threadIdx.x / LANES, dim = heads * WIDTH;
  const Head from = head_of(tokens, heads, 3), of_out = head_of(tokens, heads, 1);
  const u32 start = shared_address(shared_memory);
  const Operands m{start, start + MATRIX_BYTES, start + 2 * MATRIX_BYTES, start + 3 * MATRIX_BYTES};
  unsigned char* bytes = reinterpret_cast<unsigned char*>(shared_memory);
  float* logs = reinterpret_cast<float*>(bytes + 4 * MATRIX_BYTES);
  float *deltas = logs + ROWS, *sums = deltas + ROWS;
  copy_rows(m.d_out, d_out, of_out, 0, ROWS, threadIdx.x, THREADS);
  copy_rows(m.queries, qkv, from, 0, ROWS, threadIdx.x, THREADS);
  copy_rows(m.keys, qkv + dim, from, 0, ROWS, threadIdx.x, THREADS);
  copy_rows(m.values, qkv + 2 * dim, from, 0, ROWS, threadIdx.x, THREADS);
  // Queries beyond the last token and their dO are zeros, so they add nothing, whatever the
  // logarithm.
  for (u32 row = threadIdx.x; row < ROWS; row += THREADS)
    logs[row] = row < tokens ? log_sums[static_cast<u64>(blockIdx.x) * tokens + row] : 0.0f;
  delta_of_rows(out, of_out, bytes + 3 * MATRIX_BYTES, deltas, sums + warp * SUMS + WIDTH, lane.index);
  __syncthreads();

  float d_bias[EIGHTS][2] = {};
#pragma unroll 1
  for (u32 tile = warp; tile < TILES; tile += BACKWARD_WARPS) {
    Sums d_query = {};
    query_gradients(d_query, tile, m, logs, deltas, tokens, lane);
    store_rows(d_qkv, from, tile * TILE, d_query, SCALE, SCALE, lane.index);
#pragma unroll
    for (u32 eighth = 0; eighth < EIGHTS; ++eighth)
#pragma unroll
      for (u32 i = 0; i < 2; ++i) d_bias[eighth][i] += (d_query[eighth][i] + d_query[eighth][i + 2]) * SCALE;
  }
  sum_of_rows(d_bias, sums + warp * SUMS, lane.index);
  // In reverse order of warps, so that a warp with one fewer tile of queries does not also have one
  // fewer tile of keys.
#pragma unroll 1
  for (u32 tile = BACKWARD_WARPS - 1 - warp; tile < TILES; tile += BACKWARD_WARPS) {
    Sums d_key = {}, d_value = {};
    key_gradients(d_key, d_value, tile, m, logs, deltas, lane);
    store_rows(d_qkv + dim, from, tile * TILE, d_key, SCALE, SCALE, lane.index);
    store_rows(d_qkv + 2 * dim, from, tile * TILE, d_value, 1.0f, 1.0f, lane.index);
  }
  if (!parts) return;
  __syncthreads();
  for (u32 column = threadIdx.x; column < SUMS; column += THREADS) {
    float sum = 0.0f;
    for (u32 other = 0; other < BACKWARD_WARPS; ++other) sum += sums[other * SUMS + column];
    const u64 at = static_cast<u64>(blockIdx.x / heads) * 2 * dim + column / WIDTH * dim;
    parts[at + blockIdx.x % heads * WIDTH + column % WIDTH] = sum;
  }
}

// Computes the gradient of the bias [3 D] from parts [images, 2, D], summed in a fixed order, with
// one block per 32 columns.
extern "C" __global__ void __launch_bounds__(LANES * SUM_WARPS) attention_bias(
    const float* __restrict__ parts, u32 images, u32 dim, float* __restrict__ d_bias) {
  __shared__ float sums[SUM_WARPS][LANES];
  const u32 lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, column = blockIdx.x * LANES + lane;
  const u32 third = column / dim;
  float sum = 0.0f;
  if (third != 1)
#pragma unroll 4
    for (u32 image = warp; image < images; image += SUM_WARPS)
      sum += parts[(static_cast<u64>(image) * 2 + third / 2) * dim + column % dim];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0) return;
  for (u32 other = 1; other < SUM_WARPS; ++other) sum += sums[other][lane];
  d_bias[column] = sum;
}
