// What attention.cu, for whose compiler this is a part of the text, and the host that launches it must agree
// on, by the number of a head's tiles of 16 tokens.
#ifndef SIMDINO_ATTENTION_SIZES
#define SIMDINO_ATTENTION_SIZES

#ifdef __CUDACC_RTC__
#define ON_BOTH __device__
#else
#define ON_BOTH
#endif

constexpr unsigned HEAD_WIDTH = 64;  // columns of a head
constexpr unsigned TILE = 16;        // rows, columns, and depth of the matrix instruction's first operand
constexpr unsigned MOST_TILES = 17;  // with more, a row of scores would not fit the registers
constexpr unsigned TILE_BYTES = TILE * HEAD_WIDTH * 2;

// Warps of a block. Where not each has a tile of its own, they have a few each: what a block has loaded then
// serves for longer, while other blocks load. Of 13 tiles, those of 197 tokens, three rounds of 5 warps are
// faster than two of 7 on a Hopper.
ON_BOTH constexpr unsigned forward_warps(unsigned tiles) { return tiles < 4 ? tiles : 4; }
ON_BOTH constexpr unsigned backward_warps(unsigned tiles) {
  return tiles <= 3 ? tiles : tiles == 13 ? 5 : (tiles + 1) / 2;
}

// Shared memory: keys, values, and a tile of queries per warp.
ON_BOTH constexpr unsigned forward_bytes(unsigned tiles) { return (2 * tiles + forward_warps(tiles)) * TILE_BYTES; }
// Queries, keys, values, dO; two numbers per row, and of each warp two sums of each column.
ON_BOTH constexpr unsigned backward_bytes(unsigned tiles) {
  return 4 * tiles * TILE_BYTES + (2 * tiles * TILE + backward_warps(tiles) * 2 * HEAD_WIDTH) * 4;
}

// Blocks that a processor should have room for at once: the more of them, the more of the time in which one
// waits for memory another computes. Registers of backward passes are for 16 warps of 128 each; shared memory
// is Hopper's, of which each block costs 1024 bytes more than it has.
ON_BOTH constexpr unsigned forward_blocks(unsigned tiles) {
  return tiles <= 3 ? 10 : tiles == 4 ? 6 : tiles <= 13 ? 3 : 2;
}
ON_BOTH constexpr unsigned backward_blocks(unsigned tiles) {
  return 228 * 1024 / (backward_bytes(tiles) + 1024) < 16 / backward_warps(tiles)
      ? 228 * 1024 / (backward_bytes(tiles) + 1024)
      : 16 / backward_warps(tiles);
}

constexpr unsigned SUM_WARPS = 32;  // of a block that sums the bias's gradient

#endif
