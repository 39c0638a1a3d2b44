// Sizes on which the add_norm kernels, whose source includes this file, and the host that launches
// them must agree. They depend on the width of the residual stream, and were tuned on an H200 for
// widths of 384, 768, and 1024.
#ifndef SIMDINO_NORM_SIZES
#define SIMDINO_NORM_SIZES

#ifdef __CUDACC_RTC__
#define ON_BOTH __device__
#else
#define ON_BOTH
#endif

constexpr unsigned NORM_WARPS = 4;     // warps of a block whose warps load rows to registers
constexpr unsigned SUM_WARPS = 32;     // warps of a block that adds up the sums of other blocks
constexpr unsigned NUMBERS_BYTES = 16; // bytes of a ring's slot, for up to four numbers per row
constexpr unsigned SUMS_BYTES = 16;    // bytes of shared memory per warp, for the sums of its team

// How a block processes rows: each row is processed by a team of `team` warps. Each of the block's
// `warps` warps has a ring buffer of `stages` slots, which hold its part of the current row and of
// the next ones.
struct NormRing {
  unsigned team, warps, stages, slot_bytes;

  ON_BOTH constexpr unsigned teams() const { return warps / team; }
  ON_BOTH constexpr unsigned bytes() const { return warps * stages * slot_bytes; }
};

// Number of columns per warp of a team, a multiple of 8; the last warp may have fewer.
ON_BOTH constexpr unsigned columns_of_warp(unsigned width, unsigned team) {
  return (width / 8 + team - 1) / team * 8;
}

// Warps per team in kernels without rings. A single warp would not have enough registers for a wide
// row.
ON_BOTH constexpr unsigned norm_team(unsigned width) { return width > 1024 ? 2 : 1; }

// Forward pass, for a stream and a branch in bfloat16. It fits the shared memory of any GPU that
// supports bfloat16.
ON_BOTH constexpr NormRing add_norm_ring(unsigned width) {
  const unsigned team = width > 768 ? 2 : 1;
  return {team, 4 * team, 2, columns_of_warp(width, team) * 4 + NUMBERS_BYTES};
}
// Number of forward blocks that a multiprocessor should have registers for.
ON_BOTH constexpr unsigned add_norm_blocks(unsigned width) {
  const NormRing ring = add_norm_ring(width);
  const unsigned columns = columns_of_warp(width, ring.team);
  return (columns <= 384 ? 48 : columns <= 512 ? 32 : 24) / ring.warps;
}

// Warps per team in the backward pass. A warp's registers hold 256 columns if lanes can load eight
// at once; otherwise, 384 if that divides the width.
ON_BOTH constexpr unsigned add_norm_backward_team(unsigned width, unsigned stream_bytes) {
  const bool by_eights = stream_bytes == 2 && width % 256 == 0;
  return width % 384 == 0 && !by_eights ? width / 384 : (width + 255) / 256;
}
// `shared_bytes` is the most shared memory that a block may have on this GPU. With less than on
// Hopper, there are fewer slots or warps.
ON_BOTH constexpr NormRing add_norm_backward_ring(
    unsigned width, unsigned stream_bytes, bool has_gamma, unsigned shared_bytes) {
  const unsigned team = add_norm_backward_team(width, stream_bytes);
  const unsigned columns = columns_of_warp(width, team);
  const bool narrow = columns <= 256;
  // d_normed, out, d_out, and the branch for gamma's gradient
  const unsigned of_column = 2 + 2 * stream_bytes + (has_gamma ? 2 : 0);
  NormRing ring{team, (narrow ? 24 : 16) / team * team, narrow ? 3u : 2u, columns * of_column + NUMBERS_BYTES};
  const auto fits = [&] { return ring.bytes() + ring.warps * SUMS_BYTES <= shared_bytes; };
  if (!fits()) ring.stages = 2;
  while (!fits()) ring.warps -= team;
  return ring;
}

#endif
