// The forward pass of attention. attention_tiles.cu precedes this source.

__device__ inline float largest_of_four(float value) {
  value = fmaxf(value, __shfl_xor_sync(EVERY_LANE, value, 1));
  return fmaxf(value, __shfl_xor_sync(EVERY_LANE, value, 2));
}
__device__ inline float sum_of_four(float value) {
  value += __shfl_xor_sync(EVERY_LANE, value, 1);
  return value + __shfl_xor_sync(EVERY_LANE, value, 2);
}

// Sets the scores of keys beyond the last token to minus infinity. Only the last tile has such
// keys.
__device__ inline void mask_keys(Scores& scores, u32 tokens, u32 lane) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half)
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      const u32 key = (TILES - 1) * TILE + half * 8 + lane % 4 * 2 + i % 2;
      if (key >= tokens) scores[half][i] = -INFINITE;
    }
}

// Softmax statistics of one row of a tile.
struct Softmax {
  // The sum of the exponentials relative to the largest, and the base-2 logarithm of their full
  // sum.
  float sum, log2;
};

// Replaces scores with exponentials, in row lane / 4 or, if `below` is 1, in the row 8 below it.
__device__ inline Softmax exponentials(Scores (&scores)[TILES], u32 below) {
  float largest = -INFINITE;
#pragma unroll
  for (u32 tile = 0; tile < TILES; ++tile)
#pragma unroll
    for (u32 half = 0; half < 2; ++half)
      largest = fmaxf(largest, fmaxf(scores[tile][half][2 * below], scores[tile][half][2 * below + 1]));
  const float shift = largest_of_four(largest) * SCALE_LOG2;
  float sum = 0.0f;
#pragma unroll
  for (u32 tile = 0; tile < TILES; ++tile)
#pragma unroll
    for (u32 half = 0; half < 2; ++half)
#pragma unroll
      for (u32 i = 2 * below; i < 2 * below + 2; ++i) {
        scores[tile][half][i] = power_of_two(scores[tile][half][i] * SCALE_LOG2 - shift);
        sum += scores[tile][half][i];
      }
  sum = sum_of_four(sum);
  return {sum, shift + log2f(sum)};
}

// Computes attention for the 16 queries `a`, which are tokens [first, first + 16).
__device__ inline void attend(
    const Tile& a, u32 keys, u32 values, const Head& head, u32 first, u16* out, float* log_sums,
    const Lane& lane) {
  Scores scores[TILES];
#pragma unroll
  for (u32 tile = 0; tile < TILES; ++tile) multiply_rows(scores[tile], a, keys + tile * TILE_BYTES, lane);
  mask_keys(scores[TILES - 1], head.tokens, lane.index);
  const Softmax above = exponentials(scores, 0), below = exponentials(scores, 1);
  Sums sums = {};
#pragma unroll
  for (u32 tile = 0; tile < TILES; ++tile) {
    u32 p[4];
    to_operand(p, scores[tile]);
    add_product(sums, p, values + tile * TILE_BYTES, lane);
  }
  store_rows(out, head, first, sums, 1.0f / above.sum, 1.0f / below.sum, lane.index);
  const u32 token = first + lane.index / 4;
  if (lane.index % 4 == 0 && token < head.tokens) log_sums[token] = above.log2;
  if (lane.index % 4 == 0 && token + 8 < head.tokens) log_sums[token + 8] = below.log2;
}

// Computes the attention `out` [images, tokens, D] of qkv [images, tokens, 3 D], with one block per
// image and head. Also writes, for each row of scores, the base-2 logarithm of the sum of its
// exponentials, `log_sums` [images, heads, tokens].
extern "C" __global__ void __launch_bounds__(LANES * FORWARD_WARPS, forward_blocks(TILES)) attention_forward(
    const u16* __restrict__ qkv, u32 tokens, u32 heads, u16* __restrict__ out, float* __restrict__ log_sums) {
  const Lane lane = lane_of(threadIdx.x % LANES);
  const u32 warp = threadIdx.x / LANES;
  const Head from = head_of(tokens, heads, 3), to = head_of(tokens, heads, 1);
  const u32 keys = shared_address(shared_memory), values = keys + MATRIX_BYTES,
            queries = values + MATRIX_BYTES + warp * TILE_BYTES;
  float* logs = log_sums + static_cast<u64>(blockIdx.x) * tokens;
  copy_rows(queries, qkv, from, warp * TILE, TILE, lane.index, LANES);
  copy_rows(keys, qkv + heads * WIDTH, from, 0, ROWS, threadIdx.x, LANES * FORWARD_WARPS);
  copy_rows(values, qkv + 2 * heads * WIDTH, from, 0, ROWS, threadIdx.x, LANES * FORWARD_WARPS);
  await_copies();
  __syncthreads();
#pragma unroll 1
  for (u32 tile = warp; tile < TILES; tile += FORWARD_WARPS) {
    Tile a;
    load_tile(a, queries, lane);
    __syncwarp();  // all lanes have read the tile, so the next one may overwrite it
    const u32 next = tile + FORWARD_WARPS;
    if (next < TILES) copy_rows(queries, qkv, from, next * TILE, TILE, lane.index, LANES);
    attend(a, keys, values, to, tile * TILE, out, logs, lane);
    await_copies();
    __syncwarp();
  }
}
