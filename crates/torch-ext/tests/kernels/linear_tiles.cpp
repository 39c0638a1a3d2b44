// Tests that linear_tiles.h chooses the tiles that were fastest on an H200, of all that cuBLASLt
// proposed for the layers of ViT-S, ViT-B, and ViT-L.
#include <cstdio>

#include "linear_tiles.h"

namespace {

struct Layer {
  int64_t m, n, k;
  int64_t rows, columns; // of the fastest tile; 0 if it is within 1% of the one of libtorch
};

constexpr Layer MEASURED[] = {
    {1152, 50432, 384, 144, 128},  {384, 50432, 384, 128, 128},   {1536, 50432, 384, 128, 160},
    {384, 50432, 1536, 128, 128},  {384, 50432, 1152, 128, 128},  {1152, 47360, 384, 144, 128},
    {384, 47360, 384, 128, 160},   {1536, 47360, 384, 128, 160},  {384, 47360, 1536, 128, 160},
    {384, 47360, 1152, 128, 160},  {2304, 50432, 768, 144, 128},  {768, 50432, 768, 128, 128},
    {3072, 50432, 768, 128, 160},  {768, 50432, 3072, 0, 0},      {768, 50432, 2304, 0, 0},
    {2304, 47360, 768, 128, 160},  {768, 47360, 768, 128, 128},   {3072, 47360, 768, 128, 160},
    {768, 47360, 3072, 128, 128},  {768, 47360, 2304, 128, 128},  {3072, 25216, 1024, 128, 160},
    {1024, 25216, 1024, 128, 128}, {4096, 25216, 1024, 128, 160}, {1024, 25216, 4096, 0, 0},
    {1024, 25216, 3072, 0, 0},     {3072, 23680, 1024, 128, 160}, {1024, 23680, 1024, 128, 160},
    {4096, 23680, 1024, 128, 160}, {1024, 23680, 4096, 128, 160}, {1024, 23680, 3072, 128, 160},
};

// Layers that are too small for the cost model.
constexpr Layer OTHERS[] = {
    {1152, 394, 384, 0, 0}, {192, 50432, 192, 0, 0}, {576, 50432, 192, 0, 0}, {768, 1, 768, 0, 0}, {768, 0, 768, 0, 0}};

int wrong = 0;

void check(const Layer& layer) {
  const auto tiles = simdino::fused::faster_tiles(layer.m, layer.n, layer.k, PROCESSORS);
  const int64_t rows = tiles.empty() ? 0 : tiles[0].rows;
  const int64_t columns = tiles.empty() ? 0 : tiles[0].columns;
  if (rows != layer.rows || columns != layer.columns) {
    std::printf(
        "%ld x %ld of %ld terms: %ld x %ld\n", static_cast<long>(layer.m), static_cast<long>(layer.n),
        static_cast<long>(layer.k), static_cast<long>(rows), static_cast<long>(columns));
    ++wrong;
  }
}
}  // namespace

int main() {
  for (const auto& layer : MEASURED) {
    check(layer);
  }
  for (const auto& layer : OTHERS) {
    check(layer);
  }
  return wrong == 0 ? 0 : 1;
}
