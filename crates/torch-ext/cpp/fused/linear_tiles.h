// Which tiles of a product are faster than those that libtorch gets, by arithmetic: a run that is repeated or
// resumed must choose as before, so nothing is timed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace simdino::fused {

// A part of the result that a multiprocessor computes at once.
struct Tile {
  int64_t rows, columns;
  double speed; // of its tensor cores, relative to one another

  int64_t along_rows(int64_t m) const {
    return (m + rows - 1) / rows;
  }
  // Of a result [m, n].
  int64_t count(int64_t m, int64_t n) const {
    return along_rows(m) * ((n + columns - 1) / columns);
  }
  // Time of the result on so many multiprocessors, each of which takes one tile after the other.
  double time(int64_t m, int64_t n, double terms, int64_t processors) const {
    const auto turns = (count(m, n) + processors - 1) / processors;
    return static_cast<double>(turns * rows * columns) * terms / speed;
  }
};

// On Hopper, libtorch gets kernels in which two groups of warps share a tile, so that the tensor cores wait while
// it is written. Where sums are short, kernels whose groups take turns, each with a tile of its own, are faster,
// and their smaller tiles often leave fewer multiprocessors without work at the end.
//
// Measured on an H200 for widths of 384, 768, and 1024 (docs/HAND_WRITTEN.md).
constexpr std::array<Tile, 3> IN_TURNS{{{128, 160, 1.0}, {144, 128, 0.986}, {128, 128, 0.975}}};
constexpr std::array<Tile, 3> SHARED{{{192, 192, 1.0}, {256, 128, 1.0}, {128, 256, 1.0}}};
constexpr double WRITING = 100; // terms in the time of writing a shared tile
constexpr double WORTH = 0.98; // of libtorch's time
constexpr int64_t LEAST = 384; // rows and terms; fewer were not measured
constexpr int64_t LEAST_TURNS = 4; // with fewer, other things than these numbers count

// Tiles that should compute a result [m, n] of sums of k terms faster than libtorch's, the best first.
inline std::vector<Tile> faster_tiles(int64_t m, int64_t n, int64_t k, int64_t processors) {
  std::vector<Tile> found;
  if (m < LEAST || k < LEAST || IN_TURNS[0].count(m, n) < LEAST_TURNS * processors) {
    return found;
  }
  const auto terms = static_cast<double>(k);
  const auto time = [&](const Tile& tile) { return tile.time(m, n, terms, processors); };
  double theirs = SHARED[0].time(m, n, terms + WRITING, processors);
  for (const Tile& tile : SHARED) {
    theirs = std::min(theirs, tile.time(m, n, terms + WRITING, processors));
  }
  for (const Tile& tile : IN_TURNS) {
    if (time(tile) < WORTH * theirs) {
      found.push_back(tile);
    }
  }
  std::stable_sort(
      found.begin(), found.end(), [&](const Tile& a, const Tile& b) { return time(a) < time(b); });
  return found;
}

}  // namespace simdino::fused
