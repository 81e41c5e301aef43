// Products of bfloat16 by AMX: tiles of 16 outputs by 16 rows, one order of additions for all.
//
// Weights are the left factor as they lie in memory, 16 outputs by 32 of k; rows of x are laid out
// as the right one, pairs of k by up to 16 rows: one row alone as it is. So nothing of the weights
// is ever rearranged, and a product costs the same for one row and for sixteen.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

struct TileDot {
  using Weight = Bf16;
  static constexpr int64_t kStep = 32;  // of k
  static constexpr int64_t kRows = 16;
  static constexpr int64_t kOutputs = 16;
};

constexpr int64_t kTileOutputsTogether = 2 * TileDot::kOutputs;

// Rows of a tile, the same for all tiles of so many rows.
int64_t tile_rows(int64_t num_rows);
std::size_t tile_panel_bytes(int64_t num_rows, int64_t width);
void tile_pack(const Packing& rows, int64_t begin, int64_t end);
// One tile of a panel, of at most 16 rows: `rows` that are there among `height`.
struct PackedTile {
  const Bf16* x[TileDot::kRows];
  float inverse[TileDot::kRows];  // of their root mean squares, where there is a norm
  const Bf16* norm;               // or null
  int64_t rows;
  int64_t height;
  int64_t width;
};
void tile_pack(const PackedTile& tile, Bf16* to);
template <class Out>
void tile_gemm(const Gemm& gemm);

}  // namespace kangaroo::KANGAROO_ISA
