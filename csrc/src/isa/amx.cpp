#include "isa/amx.h"

#include "isa/norm.h"
#include "isa/tiles.h"
#include "isa/transpose.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

constexpr int64_t kStep = TileDot::kStep, kRows = TileDot::kRows, kOutputs = TileDot::kOutputs;
constexpr int64_t kItem = sizeof(Bf16);
constexpr int64_t kManyRows = 4;  // fewer are moved word by word sooner than all at once

KANGAROO_INLINE int64_t num_steps(int64_t width) { return (width + kStep - 1) / kStep; }

KANGAROO_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Where the tile that begins with row `row` begins in a panel, in values.
KANGAROO_INLINE int64_t panel_place(int64_t row, int64_t width) {
  return row * num_steps(width) * kStep;
}

// Tiles 0 to 3 are sums of 16 outputs by `rows`, 4 and 5 rows of x, 6 and 7 weights.
KANGAROO_INLINE TileConfig config_for(int64_t rows) {
  TileConfig config;
  for (int tile = 0; tile < 6; ++tile) config.row_bytes[tile] = static_cast<uint16_t>(4 * rows);
  config.row_bytes[6] = config.row_bytes[7] = kStep * kItem;
  return config;
}

// One step of the weights of 16 outputs, where a tile may not be read straight from memory, or they
// lie apart: behind the end of k it has zeros, of outputs that are not there whatever it had.
struct Edge {
  alignas(64) Bf16 values[kOutputs][kStep] = {};

  const Bf16* fill(const Gemm& g, int64_t out, int64_t k) {
    const int64_t outs = smaller(g.end - out, kOutputs);
    const int64_t left = g.width - k;
    for (int64_t j = 0; j < outs; ++j) {
      const auto* from =
          static_cast<const Bf16*>(g.weight) + g.weight_row(out + j) * g.weight_stride + k;
      if (left >= kStep) {
        __builtin_memcpy(values[j], from, sizeof values[j]);
      } else {
        __builtin_memset(values[j], 0, sizeof values[j]);
        __builtin_memcpy(values[j], from, static_cast<std::size_t>(left * kItem));
      }
    }
    return values[0];
  }
};

// Tile kA <- weights of outputs [out, out + 16), k of this step.
template <int kA>
KANGAROO_INLINE void load_weights(const Gemm& g, int64_t out, int64_t k, Edge& edge) {
  if (!g.ids && out + kOutputs <= g.end && k + kStep <= g.width) {
    const Bf16* from = static_cast<const Bf16*>(g.weight) + out * g.weight_stride + k;
    load_tile<kA>(from, g.weight_stride * kItem);
  } else {
    load_tile<kA>(edge.fill(g, out, k), kStep * kItem);
  }
}

// Sums of 16 outputs by a tile of rows go to where the rows lie.
template <class Out>
void finish(const Gemm& g, int64_t out, int64_t first_row, int64_t height, const float* sums) {
  alignas(64) float by_row[kRows * kOutputs];
  if (height < kManyRows) {
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < kOutputs; ++j) by_row[i * kOutputs + j] = sums[j * height + i];
    }
  } else {
    const void* by_output[kOutputs];
    for (int64_t j = 0; j < kOutputs; ++j) by_output[j] = sums + j * height;
    transpose(by_output, kOutputs, by_row);
  }
  const int64_t rows = smaller(g.num_rows - first_row, height);
  const int64_t outs = smaller(g.end - out, kOutputs);
  for (int64_t i = 0; i < rows; ++i) {
    const char* residual = g.residual.data ? g.residual.at(first_row + i) : nullptr;
    Out* to = reinterpret_cast<Out*>(g.out.at(first_row + i)) + out;
    each_step(outs, [&](int64_t at, int64_t lanes) {
      Floats values = load(by_row + i * kOutputs + at);
      if (g.bias) {
        values = values + load_lanes(static_cast<const Bf16*>(g.bias) + out + at, lanes);
      }
      if (residual) {
        values = load_lanes(reinterpret_cast<const Bf16*>(residual) + out + at, lanes) + values;
      }
      store_lanes(to + at, values, lanes);
    });
  }
}

// A step of k for the outputs' tiles from kOut on.
template <int kOutTiles, int kRowTiles, int kOut = 0>
KANGAROO_INLINE void add_step(const Gemm& g, int64_t out, int64_t k, Edge& edge) {
  if constexpr (kOut < kOutTiles) {
    constexpr int kWeights = 6 + kOut % 2;
    load_weights<kWeights>(g, out + kOut * kOutputs, k, edge);
    multiply_tiles<kOut * kRowTiles, kWeights, 4>();
    if constexpr (kRowTiles == 2) multiply_tiles<kOut * kRowTiles + 1, kWeights, 5>();
    add_step<kOutTiles, kRowTiles, kOut + 1>(g, out, k, edge);
  }
}

// Up to four tiles of sums at a time, so that none waits for the product before it: of outputs from
// `out` on by rows from `row` on.
template <class Out, int kOutTiles, int kRowTiles>
void tiles(const Gemm& g, int64_t out, int64_t row, int64_t height, Edge& edge) {
  constexpr int kSums = kOutTiles * kRowTiles;
  static_assert(kSums <= 4);
  const int64_t next_tile = panel_place(height, g.width), line = 2 * height * kItem;
  const auto* x = reinterpret_cast<const Bf16*>(g.panel) + panel_place(row, g.width);
  zero<0>();
  zero<1>();
  zero<2>();
  zero<3>();
  for (int64_t k = 0; k < g.width; k += kStep, x += kStep * height) {
    load_tile<4>(x, line);
    if (kRowTiles == 2) load_tile<5>(x + next_tile, line);
    add_step<kOutTiles, kRowTiles>(g, out, k, edge);
  }
  alignas(64) float sums[kSums][kOutputs * kRows];
  const int64_t stride = height * int64_t{sizeof(float)};
  store_tile<0>(sums[0], stride);
  if constexpr (kSums > 1) store_tile<1>(sums[1], stride);
  if constexpr (kSums > 2) store_tile<2>(sums[2], stride);
  if constexpr (kSums > 3) store_tile<3>(sums[3], stride);
  for (int64_t tile = 0; tile < kSums; ++tile) {
    finish<Out>(g, out + tile / kRowTiles * kOutputs, row + tile % kRowTiles * height, height,
                sums[tile]);
  }
}

// Up to four tiles of outputs, read from memory once whatever the number of rows.
template <class Out>
void outputs(const Gemm& g, int64_t out, int64_t height, Edge& edge) {
  const int64_t left = (g.end - out + kOutputs - 1) / kOutputs;
  const int64_t count = smaller(left, 4);
  int64_t row = 0;
  for (; row + height < g.num_rows; row += 2 * height) {
    int64_t tile = 0;
    for (; tile + 1 < count; tile += 2) {
      tiles<Out, 2, 2>(g, out + tile * kOutputs, row, height, edge);
    }
    if (tile < count) tiles<Out, 1, 2>(g, out + tile * kOutputs, row, height, edge);
  }
  if (row >= g.num_rows) return;
  switch (count) {
    case 1:
      return tiles<Out, 1, 1>(g, out, row, height, edge);
    case 2:
      return tiles<Out, 2, 1>(g, out, row, height, edge);
    case 3:
      return tiles<Out, 3, 1>(g, out, row, height, edge);
    default:
      return tiles<Out, 4, 1>(g, out, row, height, edge);
  }
}

// Values [k, k + 32) of row i, zeros behind its end; normalised where there is a norm.
KANGAROO_INLINE void lay_out(const PackedTile& t, int64_t i, int64_t k, Bf16* to) {
  const int64_t left = smaller(t.width - k, kStep);
  if (left < kStep) __builtin_memset(to, 0, kStep * kItem);
  each_step(left, [&](int64_t at, int64_t lanes) {
    Floats v = load_lanes(t.x[i] + k + at, lanes);
    if (t.norm) v = normed(v, t.inverse[i], t.norm + k + at, lanes);
    store_lanes(to + at, v, lanes);
  });
}

}  // namespace

int64_t tile_rows(int64_t num_rows) {
  const int64_t tiles = (num_rows + kRows - 1) / kRows;
  return tiles > 0 ? (num_rows + tiles - 1) / tiles : 1;
}

std::size_t tile_panel_bytes(int64_t num_rows, int64_t width) {
  const int64_t height = tile_rows(num_rows);
  const int64_t rows = (num_rows + height - 1) / height * height;
  return static_cast<std::size_t>(panel_place(rows, width) * kItem);
}

void tile_pack(const PackedTile& t, Bf16* to) {
  alignas(64) Bf16 block[kRows][kStep] = {};  // of rows that are not there zeros
  for (int64_t k = 0; k < t.width; k += kStep, to += kStep * t.height) {
    const bool as_it_is = !t.norm && k + kStep <= t.width;
    const void* from[kRows];
    for (int64_t i = 0; i < kRows; ++i) {
      from[i] = as_it_is && i < t.rows ? t.x[i] + k : block[i];
    }
    if (!as_it_is) {
      for (int64_t i = 0; i < t.rows; ++i) lay_out(t, i, k, block[i]);
    }
    if (t.height == 1) {
      __builtin_memcpy(to, from[0], kStep * kItem);
    } else {
      transpose(from, t.height, to);
    }
  }
}

void tile_pack(const Packing& p, int64_t begin, int64_t end) {
  PackedTile t;
  t.norm = static_cast<const Bf16*>(p.norm);
  t.height = tile_rows(p.num_rows);
  t.width = p.width;
  for (int64_t first = begin; first < end; first += t.height) {
    t.rows = smaller(end - first, t.height);
    for (int64_t i = 0; i < t.rows; ++i) {
      t.x[i] = reinterpret_cast<const Bf16*>(p.x.at(first + i));
      t.inverse[i] = p.norm ? inverse_rms(t.x[i], p.eps, p.width) : 0.0f;
    }
    tile_pack(t, reinterpret_cast<Bf16*>(p.panel) + panel_place(first, p.width));
  }
}

template <class Out>
void tile_gemm(const Gemm& g) {
  const int64_t height = tile_rows(g.num_rows);
  Edge edge;
  configure(config_for(height));
  for (int64_t out = g.begin; out < g.end; out += 4 * kOutputs) outputs<Out>(g, out, height, edge);
  release();
}

template void tile_gemm<Bf16>(const Gemm&);
template void tile_gemm<float>(const Gemm&);

}  // namespace kangaroo::KANGAROO_ISA
