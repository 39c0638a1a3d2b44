// Sizes on which the attention kernels, whose source includes this file, and the host that launches
// them must agree. They depend on the number of tiles of 16 tokens of a head.
#ifndef SIMDINO_ATTENTION_SIZES
#define SIMDINO_ATTENTION_SIZES

#ifdef __CUDACC_RTC__
#define ON_BOTH __device__
#else
#define ON_BOTH
#endif

constexpr unsigned HEAD_WIDTH = 64;  // columns of a head
constexpr unsigned TILE = 16;        // rows and columns of the mma instruction's first operand
constexpr unsigned MOST_TILES = 17;  // with more, a row of scores would not fit the registers
constexpr unsigned TILE_BYTES = TILE * HEAD_WIDTH * 2;

// Warps of a block. With more tiles than warps, each warp processes a few tiles, so that a block
// computes longer with what it has loaded, while other blocks load. For 13 tiles (197 tokens),
// three rounds of 5 warps are faster than two of 7 on Hopper.
ON_BOTH constexpr unsigned forward_warps(unsigned tiles) { return tiles < 4 ? tiles : 4; }
ON_BOTH constexpr unsigned backward_warps(unsigned tiles) {
  return tiles <= 3 ? tiles : tiles == 13 ? 5 : (tiles + 1) / 2;
}

// Shared memory: keys, values, and a tile of queries per warp.
ON_BOTH constexpr unsigned forward_bytes(unsigned tiles) { return (2 * tiles + forward_warps(tiles)) * TILE_BYTES; }
// Shared memory: queries, keys, values, and dO, two numbers per row, and two sums per column and
// warp.
ON_BOTH constexpr unsigned backward_bytes(unsigned tiles) {
  return 4 * tiles * TILE_BYTES + (2 * tiles * TILE + backward_warps(tiles) * 2 * HEAD_WIDTH) * 4;
}

// Number of blocks that a multiprocessor should hold at once. More blocks hide more memory latency.
// The backward pass's registers suffice for 16 warps with 128 per thread. The shared memory is
// Hopper's, which reserves 1024 bytes per block.
ON_BOTH constexpr unsigned forward_blocks(unsigned tiles) {
  return tiles <= 3 ? 10 : tiles == 4 ? 6 : tiles <= 13 ? 3 : 2;
}
ON_BOTH constexpr unsigned backward_blocks(unsigned tiles) {
  return 228 * 1024 / (backward_bytes(tiles) + 1024) < 16 / backward_warps(tiles)
      ? 228 * 1024 / (backward_bytes(tiles) + 1024)
      : 16 / backward_warps(tiles);
}

constexpr unsigned SUM_WARPS = 32;  // warps of a block that sums the gradient of the bias

#endif
