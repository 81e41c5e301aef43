#include "isa/amx.h"

#include "isa/norm.h"
#include "isa/tiles.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

constexpr int64_t kPanelTile = TileDot::kStep * TileDot::kRows;  // values of a step of a panel

KANGAROO_INLINE int64_t num_steps(int64_t width) {
  return (width + TileDot::kStep - 1) / TileDot::kStep;
}

// One step of the weights of 16 outputs, where a tile may not be read straight from memory: its
// edges are filled with zeros.
struct Edge {
  alignas(64) Bf16 values[TileDot::kOutputs][TileDot::kStep];

  const Bf16* fill(const Gemm& g, int64_t out, int64_t k) {
    const int64_t outs = g.end - out < TileDot::kOutputs ? g.end - out : TileDot::kOutputs;
    const int64_t left = g.width - k < TileDot::kStep ? g.width - k : TileDot::kStep;
    __builtin_memset(values, 0, sizeof values);
    for (int64_t j = 0; j < outs; ++j) {
      const Bf16* from = static_cast<const Bf16*>(g.weight) + (out + j) * g.weight_stride + k;
      __builtin_memcpy(values[j], from, static_cast<std::size_t>(left) * sizeof(Bf16));
    }
    return values[0];
  }
};

// Tile kA <- weights of outputs [out, out + 16), k of this step.
template <int kA>
void load_weights(const Gemm& g, int64_t out, int64_t k, Edge& edge) {
  if (out + TileDot::kOutputs <= g.end && k + TileDot::kStep <= g.width) {
    const Bf16* from = static_cast<const Bf16*>(g.weight) + out * g.weight_stride + k;
    load_tile<kA>(from, g.weight_stride * int64_t{sizeof(Bf16)});
  } else {
    load_tile<kA>(edge.fill(g, out, k), TileDot::kStep * int64_t{sizeof(Bf16)});
  }
}

template <class Out>
void finish(const Gemm& g, int64_t first_row, int64_t out, const float* sums) {
  const auto* bias = static_cast<const Bf16*>(g.bias);
  for (int64_t row = first_row; row < g.num_rows && row < first_row + TileDot::kRows; ++row) {
    const auto* residual =
        g.residual.data ? reinterpret_cast<const Bf16*>(g.residual.at(row)) : nullptr;
    Out* to = reinterpret_cast<Out*>(g.out.at(row));
    for (int64_t j = out; j < g.end && j < out + TileDot::kOutputs; ++j) {
      float value = sums[(j - out) * TileDot::kRows + row - first_row];
      if (bias) value += to_float(bias[j]);
      if (residual) value = to_float(residual[j]) + value;
      keep(to + j, value);
    }
  }
}

}  // namespace

std::size_t tile_panel_bytes(int64_t num_rows, int64_t width) {
  const int64_t height = (num_rows + TileDot::kRows - 1) / TileDot::kRows;
  return static_cast<std::size_t>(height * num_steps(width) * kPanelTile) * sizeof(Bf16);
}

void tile_pack(const PackedRow& source, int64_t row, int64_t num_rows, char* panel) {
  const auto* x = static_cast<const Bf16*>(source.x);
  const auto* norm = static_cast<const Bf16*>(source.norm);
  const float inverse = norm ? inverse_rms(x, source.eps, source.width) : 0.0f;
  const int64_t tile = row / TileDot::kRows * num_steps(source.width) * kPanelTile;
  auto* to = reinterpret_cast<Bf16*>(panel) + tile + row % TileDot::kRows * 2;
  // The last row fills what is left of its tile: with zeros, which no other row sees.
  const int64_t behind = row + 1 == num_rows ? TileDot::kRows - row % TileDot::kRows : 1;
  for (int64_t step = 0; step < num_steps(source.width); ++step) {
    alignas(64) Bf16 values[TileDot::kStep] = {};
    const int64_t first = step * TileDot::kStep;
    const int64_t left =
        source.width - first < TileDot::kStep ? source.width - first : TileDot::kStep;
    each_step(left, [&](int64_t at, int64_t lanes) {
      Floats v = load_lanes(x + first + at, lanes);
      if (norm) v = normed(v, inverse, norm + first + at, lanes);
      store_lanes(values + at, v, lanes);
    });
    for (int64_t pair = 0; pair < TileDot::kStep / 2; ++pair) {
      Bf16* place = to + step * kPanelTile + pair * 2 * TileDot::kRows;
      __builtin_memcpy(place, values + 2 * pair, 2 * sizeof(Bf16));
      for (int64_t other = 1; other < behind; ++other)
        place[2 * other] = place[2 * other + 1] = {0};
    }
  }
}

// Two tiles of outputs share each tile of rows.
template <class Out>
void tile_gemm(const Gemm& g) {
  constexpr int64_t kStride = TileDot::kRows * int64_t{sizeof(float)};
  constexpr int64_t kBoth = 2 * TileDot::kOutputs;
  alignas(64) float sums[kBoth * TileDot::kRows];
  Edge edge;
  configure(TileConfig());
  for (int64_t out = g.begin; out < g.end; out += kBoth) {
    for (int64_t row = 0; row < g.num_rows; row += TileDot::kRows) {
      const auto* x = reinterpret_cast<const Bf16*>(g.panel) +
                      row / TileDot::kRows * num_steps(g.width) * kPanelTile;
      zero<0>();
      zero<1>();
      for (int64_t k = 0; k < g.width; k += TileDot::kStep, x += kPanelTile) {
        load_tile<4>(x, 2 * TileDot::kRows * int64_t{sizeof(Bf16)});
        load_weights<2>(g, out, k, edge);
        multiply_tiles<0, 2, 4>();
        if (out + TileDot::kOutputs >= g.end) continue;
        load_weights<3>(g, out + TileDot::kOutputs, k, edge);
        multiply_tiles<1, 3, 4>();
      }
      store_tile<0>(sums, kStride);
      store_tile<1>(sums + TileDot::kOutputs * TileDot::kRows, kStride);
      finish<Out>(g, row, out, sums);
      finish<Out>(g, row, out + TileDot::kOutputs, sums + TileDot::kOutputs * TileDot::kRows);
    }
  }
  release();
}

template void tile_gemm<Bf16>(const Gemm&);
template void tile_gemm<float>(const Gemm&);

}  // namespace kangaroo::KANGAROO_ISA
