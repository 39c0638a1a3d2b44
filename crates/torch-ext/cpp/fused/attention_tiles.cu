// Building blocks of self-attention for short sequences, forward and backward, with heads of 64
// columns in bfloat16. A block computes one head of one image: the head's rows are in shared
// memory, and no [T, T] matrix is written to global memory.
//
// The projection and its gradient have the same layout, [images, tokens, 3 D]: queries, keys, and
// values, each with its heads side by side. No separate passes are needed to split heads or merge
// gradients.
//
// TILES, the number of tiles of 16 tokens of a head, is fixed at compile time, so that a whole row
// of scores fits the registers, and its softmax needs no second pass. Tokens beyond the last are
// zeros in shared memory; as keys, their probabilities are set to zero, and as queries, their rows
// are never stored.
//
// common.cu and attention_sizes.h precede this source. tests/kernels runs it on the CPU and
// compares it with plain loops.

#define WIDTH HEAD_WIDTH
#define STEPS (WIDTH / TILE)     // 16 x 16 blocks in a tile of 16 rows
#define EIGHTS (WIDTH / 8)       // groups of 8 columns (16 bytes) in a row
#define ROWS (TILES * TILE)      // rows of a matrix in shared memory
#define MATRIX_BYTES (TILES * TILE_BYTES)
#define SCALE 0.125f             // scale of scores, WIDTH^-0.5
#define SCALE_LOG2 (SCALE * 1.4426950408889634f)  // the scale for base-2 exponentials
#define SUMS (2 * WIDTH)         // columns of the bias with nonzero gradients: queries' and values'
static_assert(TILES <= MOST_TILES, "a row of scores must fit the registers");
constexpr u32 FORWARD_WARPS = forward_warps(TILES), BACKWARD_WARPS = backward_warps(TILES);

// Instructions

#ifndef SIMDINO_EMULATED
extern __shared__ __align__(128) uint4 shared_memory[];

__device__ inline u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}
// Starts copying 16 bytes to shared memory, or as many zeros; complete only after await_copies.
__device__ inline void copy_async(u32 to, const u16* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
// Waits for this thread's own copies.
__device__ inline void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Loads four 8 x 8 matrices. Lane l passes the address of row l % 8 of matrix l / 8, and receives,
// from row l / 4 of each matrix, elements 2 * (l % 4) and 2 * (l % 4) + 1.
__device__ inline void load_matrices(u32 (&to)[4], u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// The same for the transposes of the four matrices.
__device__ inline void load_transposed(u32 (&to)[4], u32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// sum [16 x 8] += a [16 x 16] b [16 x 8]. With g = lane / 4 and t = 2 * (lane % 4), a lane holds
// these pairs: of a, at rows g, g + 8, g, g + 8 and columns t, t, t + 8, t + 8; of b, at column g
// and rows t, t + 8; of the sum, at rows g, g + 8 and columns t, t + 1.
__device__ inline void multiply_add(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  // The sum is passed as separate input and output operands, so that a zero sum needs no registers
  // beforehand.
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
               "{%8, %9}, {%10, %11, %12, %13};"
               : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(sum[0]), "f"(sum[1]),
                 "f"(sum[2]), "f"(sum[3]));
}
// Returns 2^x with an error up to 2 ulp; 0 for -infinity.
__device__ inline float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
#define INFINITE bits_to_float(0x7f800000u)
#endif

// Rows in shared memory

// Returns the offset of a piece of 16 bytes, eight of which make up a row. Piece p of row r is
// stored at p ^ (r % 8), so that the same piece of eight rows, which an instruction accesses at
// once, causes no bank conflicts.
__device__ inline u32 place(u32 row, u32 piece) { return row * (WIDTH * 2) + (piece ^ row % 8) * 16; }

// Offsets from the start of a tile of this lane's row of the four 8 x 8 matrices of a 16 x 16
// block. Matrices are numbered down the columns first, or across the rows first, so that the two
// that form the second operand of one instruction are consecutive.
struct Lane {
  u32 index, down, across;
};
__device__ inline Lane lane_of(u32 index) {
  const u32 low = index / 8 % 2, high = index / 16;
  return {index, place(index % 8 + 8 * low, high), place(index % 8 + 8 * high, low)};
}
// Returns the address in 16 x 16 block `step` of a tile. Moving to another block changes two bits
// of the piece. Tiles start at multiples of a row, so that one register holds both the tile's
// address and the lane's offset.
__device__ inline u32 block_address(u32 tile_and_lane, u32 step) { return tile_and_lane ^ step * 32; }

// Location of a head of an image, or of its gradient. Offsets within an image have 32 bits.
struct Head {
  u64 first;           // element of row 0, column 0
  u32 tokens, stride;  // number of rows, and elements from one row to the next
};
__device__ inline Head head_of(u32 tokens, u32 heads, u32 parts) {
  const u32 image = blockIdx.x / heads, head = blockIdx.x % heads;
  const u32 stride = parts * heads * WIDTH;
  return {static_cast<u64>(image) * tokens * stride + head * WIDTH, tokens, stride};
}

// Copies rows [first, first + count) of a head to shared memory with `threads` threads. Rows beyond
// the last token become zeros.
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

typedef u32 Tile[STEPS][4];      // 16 rows of 64 columns, as the first operand
typedef float Scores[2][4];      // 16 x 16, in two halves of 8 columns
typedef float Sums[EIGHTS][4];   // 16 rows of 64 columns, in eight groups of 8 columns

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

// Converts scores to a first operand, in which each lane holds the same elements as in a sum.
__device__ inline void to_operand(u32 (&a)[4], const Scores& scores) {
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    a[2 * half] = to_bf16_pair(scores[half][0], scores[half][1]);
    a[2 * half + 1] = to_bf16_pair(scores[half][2], scores[half][3]);
  }
}

__device__ inline u32 swap_with(u32 value, u32 distance) { return __shfl_xor_sync(EVERY_LANE, value, distance); }

// Transposes the four words of each of four neighboring lanes: lane l receives word l % 4 of each.
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

// Stores rows [first, first + 16) of a head, each multiplied by its factor, except those beyond the
// last token. Lanes first exchange pairs, so that each stores 16 bytes at once.
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
