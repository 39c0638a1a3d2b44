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
// common.cu and attention_sizes.h come before this text, which has what both passes need. tests/kernels runs
// it on the CPU and compares it with plain loops.

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
