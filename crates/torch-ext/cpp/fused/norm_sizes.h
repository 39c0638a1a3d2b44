// What the kernels of add_norm, for whose compiler this is a part of the text, and the host that launches them
// must agree on, by the width of the residual stream. What is best was measured on an H200 for widths of 384,
// 768, and 1024.
#ifndef SIMDINO_NORM_SIZES
#define SIMDINO_NORM_SIZES

#ifdef __CUDACC_RTC__
#define ON_BOTH __device__
#else
#define ON_BOTH
#endif

constexpr unsigned NORM_WARPS = 4;     // of a block whose warps load rows to registers
constexpr unsigned SUM_WARPS = 32;     // of a block that adds up the sums of others
constexpr unsigned NUMBERS_BYTES = 16; // of a ring's slot, for up to four numbers of the row
constexpr unsigned SUMS_BYTES = 16;    // of shared memory, for what a warp adds to the sums of its team

// How a block takes rows: `team` warps take one together, and each of its `warps` has a ring of `stages` slots
// with its part of the row that it computes and of the next ones.
struct NormRing {
  unsigned team, warps, stages, slot_bytes;

  ON_BOTH constexpr unsigned teams() const { return warps / team; }
  ON_BOTH constexpr unsigned bytes() const { return warps * stages * slot_bytes; }
};

// Columns that a warp of a team takes, in eights; the last may have fewer.
ON_BOTH constexpr unsigned columns_of_warp(unsigned width, unsigned team) {
  return (width / 8 + team - 1) / team * 8;
}

// Warps of a block whose rows are not loaded through rings: a wide one would need more registers than a warp has.
ON_BOTH constexpr unsigned norm_team(unsigned width) { return width > 1024 ? 2 : 1; }

// Forward, for a stream and a branch in bfloat16. It fits the shared memory of any GPU that has bfloat16.
ON_BOTH constexpr NormRing add_norm_ring(unsigned width) {
  const unsigned team = width > 768 ? 2 : 1;
  return {team, 4 * team, 2, columns_of_warp(width, team) * 4 + NUMBERS_BYTES};
}
// Blocks of it that a processor should have registers for.
ON_BOTH constexpr unsigned add_norm_blocks(unsigned width) {
  const NormRing ring = add_norm_ring(width);
  const unsigned columns = columns_of_warp(width, ring.team);
  return (columns <= 384 ? 48 : columns <= 512 ? 32 : 24) / ring.warps;
}

// Backward, with values of a warp's 256 columns in registers where lanes can take eight at once, or of 384.
ON_BOTH constexpr unsigned add_norm_backward_team(unsigned width, unsigned stream_bytes) {
  const bool by_eights = stream_bytes == 2 && width % 256 == 0;
  return width % 384 == 0 && !by_eights ? width / 384 : (width + 255) / 256;
}
// `shared_bytes`: what a block may have on this GPU. If that is less than Hopper's, there are fewer slots or warps.
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
