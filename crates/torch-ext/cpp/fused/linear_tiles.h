// Chooses tiles for a matrix product that should be faster than libtorch's. The choice uses a cost
// model instead of timings, so that a repeated or resumed run makes the same one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace simdino::fused {

// A tile of the result, which a multiprocessor computes at once.
struct Tile {
  int64_t rows, columns;
  double speed; // of the tensor cores with this tile, relative to other tiles

  int64_t along_rows(int64_t m) const {
    return (m + rows - 1) / rows;
  }
  // Number of tiles of a result [m, n].
  int64_t count(int64_t m, int64_t n) const {
    return along_rows(m) * ((n + columns - 1) / columns);
  }
  // Estimated time, in arbitrary units, of a result [m, n] of sums of `terms` terms on `processors`
  // multiprocessors, each of which computes one tile after the other.
  double time(int64_t m, int64_t n, double terms, int64_t processors) const {
    const auto turns = (count(m, n) + processors - 1) / processors;
    return static_cast<double>(turns * rows * columns) * terms / speed;
  }
};

// On Hopper, libtorch uses cooperative kernels, in which two warp groups share a tile, so that the
// tensor cores idle while it is written. If sums are short, ping-pong kernels, whose warp groups
// take turns with a tile each, are faster, and their smaller tiles often leave fewer
// multiprocessors idle at the end.
//
// Measured on an H200 for widths of 384, 768, and 1024 (docs/HAND_WRITTEN.md).
constexpr std::array<Tile, 3> IN_TURNS{{{128, 160, 1.0}, {144, 128, 0.986}, {128, 128, 0.975}}};
constexpr std::array<Tile, 3> SHARED{{{192, 192, 1.0}, {256, 128, 1.0}, {128, 256, 1.0}}};
constexpr double WRITING = 100; // time to write a shared tile, in terms of its sums
constexpr double WORTH = 0.98; // largest fraction of libtorch's time that is worth a change
constexpr int64_t LEAST = 384; // fewest rows and terms; smaller products were not measured
constexpr int64_t LEAST_TURNS = 4; // fewest tiles per multiprocessor for which the model holds

// Returns the tiles that should compute a result [m, n] of sums of k terms faster than libtorch's,
// fastest first.
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
