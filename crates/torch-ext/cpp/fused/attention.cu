// Self-attention of short sequences, forward and backward, for heads of 64 columns in bfloat16. A block
// computes one head of one image: the head's rows lie in shared memory, and no [T, T] matrix reaches memory.
//
// The projection is read and its gradient written in the projection's own layout, [images, tokens, 3 D]:
// queries, keys, values, each head beside head. So no pass splits heads before, or merges gradients after.
//
// TILES, the tiles of 16 tokens that a head has, is fixed when the text is compiled: a whole row of scores
// then fits the registers, and its softmax needs no second pass. Tokens beyond the last are zeros in shared
// memory; their probabilities as keys are set to zero, and their rows as queries are never stored.
//
// common.cu and attention_sizes.h come before this text. tests/kernels runs it on the CPU and compares it with plain loops.

#define WIDTH HEAD_WIDTH
#define STEPS (WIDTH / TILE)     // blocks of 16 x 16 in a tile of 16 rows
#define EIGHTS (WIDTH / 8)       // blocks of 8 columns in a row, of 16 bytes each
#define ROWS (TILES * TILE)      // of a matrix in shared memory
#define MATRIX_BYTES (TILES * TILE_BYTES)
#define SCALE 0.125f             // of scores: WIDTH^-0.5
#define SCALE_LOG2 (SCALE * 1.4426950408889634f)  // for exponentials of base 2, the hardware's
#define SUMS (2 * WIDTH)         // columns of the bias whose gradients are summed: queries' and values'
static_assert(TILES <= MOST_TILES, "a row of scores must fit the registers");
constexpr u32 FORWARD_WARPS = forward_warps(TILES), BACKWARD_WARPS = backward_warps(TILES);

// Instructions

#ifndef SIMDINO_EMULATED
extern __shared__ __align__(128) uint4 shared_memory[];

__device__ inline u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}
// 16 bytes to shared memory, or as many zeros; in flight until await_copies.
__device__ inline void copy_async(u32 to, const u16* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
// Waits for this thread's own copies.
__device__ inline void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Four matrices of 8 x 8. Lane l names row l % 8 of matrix l / 8, and gets of each matrix the elements
// 2 * (l % 4) and the next of row l / 4.
__device__ inline void load_matrices(u32 (&to)[4], u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// The same of the four matrices' transposes.
__device__ inline void load_transposed(u32 (&to)[4], u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// sum [16 x 8] += a [16 x 16] b [16 x 8]. With g = lane / 4 and t = 2 * (lane % 4), a lane holds of a the
// pairs at rows g, g + 8, g, g + 8 and columns t, t, t + 8, t + 8; of b those at column g and rows t, t + 8;
// of the sum those at rows g, g + 8 and columns t, t + 1.
__device__ inline void multiply_add(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  // The sum is named twice, so that one of zeros needs no registers before.
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
               "{%8, %9}, {%10, %11, %12, %13};"
               : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(sum[0]), "f"(sum[1]),
                 "f"(sum[2]), "f"(sum[3]));
}
// 2^x, to two units in the last place; 0 for -infinity.
__device__ inline float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
#define INFINITE bits_to_float(0x7f800000u)
#endif

// Rows in shared memory

// A row has eight pieces of 16 bytes. Piece p of row r lies at p ^ (r % 8), so that the same piece of eight
// rows, which is what an instruction reads or writes at once, lies in eight different places of the banks.
__device__ inline u32 place(u32 row, u32 piece) { return row * (WIDTH * 2) + (piece ^ row % 8) * 16; }

// Where this lane's row of the four 8 x 8 matrices of a 16 x 16 block is, from the start of a tile. Matrices
// are numbered down the columns first, or across the rows first, so that the two that one instruction takes as
// its second operand are neighbors: registers come in pairs.
struct Lane {
  u32 index, down, across;
};
__device__ inline Lane lane_of(u32 index) {
  const u32 low = index / 8 % 2, high = index / 16;
  return {index, place(index % 8 + 8 * low, high), place(index % 8 + 8 * high, low)};
}
// The step to another block of the tile changes two bits of the piece. Tiles start at multiples of a row, so
// that one register holds both the tile's address and the lane's place.
__device__ inline u32 block_address(u32 tile_and_lane, u32 step) { return tile_and_lane ^ step * 32; }

// Where a head of an image is, or its gradient is to be. Within an image, offsets have 32 bits.
struct Head {
  u64 first;           // element of row 0, column 0
  u32 tokens, stride;  // elements from a row to the next
};
__device__ inline Head head_of(u32 tokens, u32 heads, u32 parts) {
  const u32 image = blockIdx.x / heads, head = blockIdx.x % heads;
  const u32 stride = parts * heads * WIDTH;
  return {static_cast<u64>(image) * tokens * stride + head * WIDTH, tokens, stride};
}

// Rows [first, first + count) of a head to shared memory by `threads` threads; zeros beyond the last token.
__device__ inline void copy_rows(
    u32 to, const u16* from, const Head& head, u32 first, u32 count, u32 thread, u32 threads) {
  for (u32 at = thread; at < count * EIGHTS; at += threads) {
    const u32 row = at / EIGHTS, piece = at % EIGHTS, token = first + row;
    const bool there = token < head.tokens;
    const u32 element = (there ? token : 0) * head.stride + piece * 8;
    copy_async(to + place(row, piece), from + head.first + element, there);
  }
}

// Products of tiles

typedef u32 Tile[STEPS][4];      // 16 rows of 64 columns, as first operand
typedef float Scores[2][4];      // 16 x 16, in halves of 8 columns
typedef float Sums[EIGHTS][4];   // 16 rows of 64 columns, in eighths

__device__ inline void load_tile(Tile& to, u32 tile, const Lane& lane) {
#pragma unroll
  for (u32 step = 0; step < STEPS; ++step) load_matrices(to[step], block_address(tile + lane.down, step));
}

// scores = a b^T, where b is a tile in shared memory.
__device__ inline void multiply_rows(Scores& scores, const Tile& a, u32 tile, const Lane& lane) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half)
#pragma unroll
    for (u32 i = 0; i < 4; ++i) scores[half][i] = 0.0f;
#pragma unroll
  for (u32 step = 0; step < STEPS; ++step) {
    u32 b[4];
    load_matrices(b, block_address(tile + lane.across, step));
    multiply_add(scores[0], a[step], b[0], b[1]);
    multiply_add(scores[1], a[step], b[2], b[3]);
  }
}

// sums += a b, where a is [16 x 16] and b a tile in shared memory.
__device__ inline void add_product(Sums& sums, const u32 (&a)[4], u32 tile, const Lane& lane) {
#pragma unroll
  for (u32 step = 0; step < STEPS; ++step) {
    u32 b[4];
    load_transposed(b, block_address(tile + lane.down, step));
    multiply_add(sums[2 * step], a, b[0], b[1]);
    multiply_add(sums[2 * step + 1], a, b[2], b[3]);
  }
}

// As a first operand: the sum's pairs lie where that has its own.
__device__ inline void to_operand(u32 (&a)[4], const Scores& scores) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    a[2 * half] = to_bf16_pair(scores[half][0], scores[half][1]);
    a[2 * half + 1] = to_bf16_pair(scores[half][2], scores[half][3]);
  }
}

__device__ inline u32 swap_with(u32 value, u32 distance) { return __shfl_xor_sync(EVERY_LANE, value, distance); }

// Four words of four neighboring lanes, transposed: lane l gets word l % 4 of each.
__device__ inline void transpose_four(u32 (&words)[4], u32 lane) {
#pragma unroll
  for (u32 distance = 1; distance < 4; distance *= 2) {
    const bool second = lane & distance;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      if (i & distance) continue;
      const u32 other = swap_with(second ? words[i] : words[i + distance], distance);
      if (second) words[i] = other;
      else words[i + distance] = other;
    }
  }
}

// Rows [first, first + 16) of a head, each times its factor, without those beyond the last token. Lanes
// exchange their pairs, so that each stores 16 bytes.
__device__ inline void store_rows(
    u16* to, const Head& head, u32 first, const Sums& sums, float factor, float factor_below, u32 lane) {
#pragma unroll
  for (u32 below = 0; below < 2; ++below) {
    const u32 token = first + lane / 4 + 8 * below;
    const float by = below ? factor_below : factor;
    const u32 row = token * head.stride;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
      u32 words[4];
#pragma unroll
      for (u32 i = 0; i < 4; ++i) {
        const float(&sum)[4] = sums[4 * half + i];
        words[i] = to_bf16_pair(sum[2 * below] * by, sum[2 * below + 1] * by);
      }
      transpose_four(words, lane);
      if (token < head.tokens)
        *reinterpret_cast<uint4*>(to + head.first + (row + (4 * half + lane % 4) * 8)) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

// Forward

__device__ inline float largest_of_four(float value) {
  value = fmaxf(value, __shfl_xor_sync(EVERY_LANE, value, 1));
  return fmaxf(value, __shfl_xor_sync(EVERY_LANE, value, 2));
}
__device__ inline float sum_of_four(float value) {
  value += __shfl_xor_sync(EVERY_LANE, value, 1);
  return value + __shfl_xor_sync(EVERY_LANE, value, 2);
}

// Scores of keys beyond the last token become minus infinity. Only the last tile has such keys.
__device__ inline void mask_keys(Scores& scores, u32 tokens, u32 lane) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half)
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      const u32 key = (TILES - 1) * TILE + half * 8 + lane % 4 * 2 + i % 2;
      if (key >= tokens) scores[half][i] = -INFINITE;
    }
}

// Of one row of a tile.
struct Softmax {
  float sum, log2;  // of exponentials, without the largest's; the logarithm with it
};

// From scores to exponentials in place, of row lane / 4, or of the row 8 below.
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

// Attention of the 16 queries `a`, which are tokens [first, first + 16).
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

// out [images, tokens, D] = attention of qkv [images, tokens, 3 D], a block per image and head; of each row
// of scores the logarithm of base 2 of its exponentials' sum, `log_sums` [images, heads, tokens].
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
    __syncwarp();  // all lanes have read the tile, and the next one may come
    const u32 next = tile + FORWARD_WARPS;
    if (next < TILES) copy_rows(queries, qkv, from, next * TILE, TILE, lane.index, LANES);
    attend(a, keys, values, to, tile * TILE, out, logs, lane);
    await_copies();
    __syncwarp();
  }
}

// Backward
//
// With P the probabilities, dP = dO V^T, delta = rowsum(dO * O), and dS = P * (dP - delta), it is
//   dV = P^T dO,  dQ = scale dS K,  dK = scale dS^T Q.
// A warp takes tiles of queries, for dQ, and then tiles of keys, for dV and dK, and computes P and dS anew for
// the latter: two products more than if warps added to each other's results, but no two warps write the same,
// nothing waits, and the sums have one order.

// The four matrices in shared memory.
struct Operands {
  u32 queries, keys, values, d_out;
};

// Exponentials of scores less the logarithms of the sums, then dS; `log2` and `delta` are of a score's query.
__device__ inline float probability(float score, float log2) {
  return power_of_two(score * SCALE_LOG2 - log2);
}

// dQ of a tile of queries, without the scale.
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

// dK, without the scale, and dV of a tile of keys. Scores are transposed: a row is a key's.
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

// Pieces of a matrix that a thread of the backward pass takes.
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

// rowsum(dO * O) of all rows, and the sums of dO over the rows that this warp takes, `sums` [WIDTH]. The
// output is asked for before the copies to shared memory are waited for.
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
  await_copies();  // a thread reads only what it has copied itself
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

// Sums over the rows of a warp's tiles, `to` [WIDTH], from those of each lane's rows.
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

// The gradient of qkv, [images, tokens, 3 D], of attention_forward, a block per image and head; of the bias
// the sums over the tokens of each image, `parts` [images, 2, D]: of queries and values.
//
// A bias of values is multiplied with probabilities, whose sum is 1: its gradient is the sum of dO. One of keys
// adds the same to all scores of a row, which changes no probability: its gradient is 0, and nothing is summed.
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
  // Beyond the last token a query is zeros, and so is its dO: with any finite logarithm, it adds nothing.
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
  // In the other order, so that a warp that had a tile less of queries has not one less of keys, too.
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

// The gradient of the bias [3 D] from parts [images, 2, D], in a fixed order; a block for 32 columns.
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
