#include "isa/gemm.h"

#include "isa/norm.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

// Rows of a tile: with as many outputs beside them as still fit the registers.
#ifdef __AVX512F__
constexpr int kTileRows = 8;
constexpr int outputs_beside(int rows) { return rows <= 6 ? 4 : 3; }
#else
constexpr int kTileRows = 4;
constexpr int outputs_beside(int rows) { return rows <= 2 ? 4 : 3; }
#endif

// Weights that wait in the L2 cache until all tiles of rows have passed.
constexpr int64_t kBlockBytes = 256 * 1024;
constexpr int64_t kPrefetchBytes = 8 * 1024;  // at least: memory answers after some 100 ns
constexpr int64_t kShortRowBytes = 2048;
constexpr int kMaxStreamRows = 2;  // more are bound by arithmetic, and want several outputs
// Rows longer than this, all rows of a tile together, are read in blocks of so many bytes: one by
// one tile would push them out of the L1 cache, and they, not the weights, would be what it waits
// for.
constexpr int64_t kRowBytes = 16 * 1024;
constexpr int kTilesPerBlock = 2;

// Rows [first, first + count) of the tile that row stands in: tiles of even height.
struct TileRows {
  int64_t first;
  int64_t count;
};

KANGAROO_INLINE TileRows tile_of(int64_t row, int64_t num_rows) {
  const int64_t tiles = (num_rows + kTileRows - 1) / kTileRows;
  const int64_t height = num_rows / tiles;
  const int64_t taller = num_rows % tiles;  // the first so many tiles have a row more
  const int64_t edge = taller * (height + 1);
  if (row < edge) return {row / (height + 1) * (height + 1), height + 1};
  return {edge + (row - edge) / height * height, height};
}

template <class Dot>
KANGAROO_INLINE int64_t num_steps(int64_t width) {
  return (width + Dot::kStep - 1) / Dot::kStep;
}

// One vector of a step: of an output's weights, and of a row.
KANGAROO_INLINE Floats weights_of(const float* w, int) { return load_once(w); }
KANGAROO_INLINE Floats weights_of(const Bf16* w, int part) {
  return part == 0 ? even_lanes(w) : odd_lanes(w);
}

KANGAROO_INLINE Floats add_products(Floats w, Floats x, Floats sum) { return fma(x, w, sum); }

template <class Dot>
struct Parts {
  static constexpr int kCount = static_cast<int>(Dot::kStep / kLanes);
  KANGAROO_INLINE static Floats of_weights(const typename Dot::Weight* w, int part) {
    return weights_of(w, part);
  }
  KANGAROO_INLINE static Floats of_row(const float* x, int part) {
    return load_once(x + part * kLanes);
  }
};

template <>
struct Parts<ByteDot> : Parts<FloatDot> {
  KANGAROO_INLINE static Floats of_weights(const int8_t* w, int) { return lanes_of(w); }
};

template <>
struct Parts<WideByteDot> : Parts<WideDot> {
  KANGAROO_INLINE static Floats of_weights(const int8_t* w, int part) {
    return paired_lanes_of(w, part);
  }
};

#ifdef __AVX512BF16__
KANGAROO_INLINE Floats add_products(__m512bh w, __m512bh x, Floats sum) {
  return _mm512_dpbf16_ps(sum, x, w);
}

template <>
struct Parts<PairDot> {
  static constexpr int kCount = 1;
  KANGAROO_INLINE static __m512bh of_weights(const Bf16* w, int) {
    return reinterpret_cast<__m512bh>(load_once(reinterpret_cast<const float*>(w)));
  }
  KANGAROO_INLINE static __m512bh of_row(const Bf16* x, int) { return of_weights(x, 0); }
};
#endif

template <class Weight>
KANGAROO_INLINE const Weight* weights_at(const Gemm& g, int64_t output) {
  return static_cast<const Weight*>(g.weight) + g.weight_row(output) * g.weight_stride;
}

// A compiler left to itself loads every row again for every output, and the loads then bind.
template <class Dot, int kRows, int kOuts>
KANGAROO_INLINE void add_step(const typename Dot::Packed* x, const typename Dot::Weight* const* w,
                              Floats (&acc)[kRows][kOuts]) {
#pragma GCC unroll 2
  for (int part = 0; part < Parts<Dot>::kCount; ++part) {
    decltype(Parts<Dot>::of_weights(*w, part)) held[kOuts];
#pragma GCC unroll 8
    for (int j = 0; j < kOuts; ++j) held[j] = Parts<Dot>::of_weights(w[j], part);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const auto row = Parts<Dot>::of_row(x + i * Dot::kStep, part);
#pragma GCC unroll 8
      for (int j = 0; j < kOuts; ++j) acc[i][j] = add_products(held[j], row, acc[i][j]);
    }
  }
}

// Where the results of a row go, and what is added to them or null; found once, for it takes a
// division.
struct Place {
  char* out;
  const char* residual;
};

KANGAROO_INLINE Place place_of(const Gemm& g, int64_t row) {
  return {g.out.at(row), g.residual.data ? g.residual.at(row) : nullptr};
}

template <int kOuts, class T, class Out>
KANGAROO_INLINE void finish(const Floats (&acc)[kOuts], const Gemm& g, const Place& place,
                            int64_t first) {
  float sums[(kOuts + 3) / 4 * 4];
#pragma GCC unroll 2
  for (int j = 0; j < kOuts; j += 4) {
    const Floats b = acc[j + 1 < kOuts ? j + 1 : j];
    const Floats c = acc[j + 2 < kOuts ? j + 2 : j];
    const Floats d = acc[j + 3 < kOuts ? j + 3 : j];
    sum4(acc[j], b, c, d, sums + j);
  }
  Out* out = reinterpret_cast<Out*>(place.out) + first;
  if constexpr (sizeof(T) == sizeof(int8_t)) {
#pragma GCC unroll 8
    for (int j = 0; j < kOuts; ++j) keep(out + j, sums[j] * g.scale[g.weight_row(first + j)]);
  } else {
    const auto* bias = static_cast<const T*>(g.bias);
    const auto* residual = reinterpret_cast<const T*>(place.residual);
#pragma GCC unroll 8
    for (int j = 0; j < kOuts; ++j) {
      float value = sums[j];
      if (bias) value += to_float(bias[first + j]);
      if (residual) value = to_float(residual[first + j]) + value;
      keep(out + j, value);
    }
  }
}

// Adds whole steps of k, and goes on in x and w. The weights `ahead` elements on are called to the
// L2 cache, past the L1 cache where the rows are: at M = 8 the difference between waiting for
// memory and not.
template <class Dot, int kRows, int kOuts>
KANGAROO_INLINE void add_steps(const typename Dot::Packed*& x,
                               const typename Dot::Weight* (&w)[kOuts], int64_t steps,
                               int64_t ahead, Floats (&acc)[kRows][kOuts]) {
  for (; steps > 0; --steps) {
    add_step<Dot, kRows, kOuts>(x, w, acc);
    x += kRows * Dot::kStep;
#pragma GCC unroll 8
    for (int j = 0; j < kOuts; ++j) {
      __builtin_prefetch(w[j] + ahead, 0, 2);
      w[j] += Dot::kStep;
    }
  }
}

// Adds the last `left` elements, less than a step.
template <class Dot, int kRows, int kOuts>
KANGAROO_INLINE void add_rest(const typename Dot::Packed* x,
                              const typename Dot::Weight* (&w)[kOuts], int64_t left,
                              Floats (&acc)[kRows][kOuts]) {
  if (left == 0) return;
  alignas(64) typename Dot::Weight last[kOuts][Dot::kStep] = {};
  for (int j = 0; j < kOuts; ++j) {
    __builtin_memcpy(last[j], w[j], static_cast<std::size_t>(left) * sizeof(last[j][0]));
    w[j] = last[j];
  }
  add_step<Dot, kRows, kOuts>(x, w, acc);
}

// The tile of rows from `row` on times kTiles tiles of kOuts outputs from `out` on, `block` steps
// of k at a time, which the tiles then find in the L1 cache. The outputs after these are `next`
// elements on, or anywhere where that is 0.
template <class Dot, class Out, int kRows, int kOuts, int kTiles>
void tiles(const Gemm& g, const Place* places, int64_t row, int64_t out, int64_t block,
           int64_t next) {
  using Weight = typename Dot::Weight;
  const int64_t left = g.width % Dot::kStep;
  const int64_t steps = g.width / Dot::kStep;
  const auto* x = reinterpret_cast<const typename Dot::Packed*>(g.panel) +
                  row * num_steps<Dot>(g.width) * Dot::kStep;
  Floats sums[kTiles][kRows][kOuts];
  int64_t step = 0;
  do {  // once where there is no whole step
    const int64_t count = block < steps - step ? block : steps - step;
    const bool last = step + count == steps;
    const int64_t ahead = last ? next - step * Dot::kStep : block * Dot::kStep;
    const auto* rows = x;
    for (int t = 0; t < kTiles; ++t) {
      const Weight* w[kOuts];
#pragma GCC unroll 8
      for (int j = 0; j < kOuts; ++j) {
        w[j] = weights_at<Weight>(g, out + t * kOuts + j) + step * Dot::kStep;
      }
      Floats acc[kRows][kOuts] = {};
      if (step > 0) __builtin_memcpy(&acc, &sums[t], sizeof(acc));
      rows = x;
      add_steps<Dot, kRows, kOuts>(rows, w, count, ahead, acc);
      if (last) {
        add_rest<Dot, kRows, kOuts>(rows, w, left, acc);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          finish<kOuts, Weight, Out>(acc[i], g, places[i], out + t * kOuts);
        }
      } else {
        __builtin_memcpy(&sums[t], &acc, sizeof(acc));
      }
    }
    x = rows;
    step += count;
  } while (step < steps);
}

// The same, one output after the other: short rows of weights are then one stream through memory,
// which the hardware follows by itself.
template <class Dot, class Out, int kRows, int kOuts>
void stream(const Gemm& g, const Place* places, int64_t row, int64_t out) {
  using Weight = typename Dot::Weight;
  const auto* x = reinterpret_cast<const typename Dot::Packed*>(g.panel) +
                  row * num_steps<Dot>(g.width) * Dot::kStep;
  const int64_t whole = g.width / Dot::kStep * Dot::kStep;
  Floats acc[kRows][kOuts];
  for (int j = 0; j < kOuts; ++j) {
    const Weight* w[1] = {weights_at<Weight>(g, out + j)};
    const auto* rows = x;
    Floats sums[kRows][1] = {};
    for (int64_t k = 0; k < whole; k += Dot::kStep) {
      add_step<Dot, kRows, 1>(rows, w, sums);
      rows += kRows * Dot::kStep;
      w[0] += Dot::kStep;
    }
    add_rest<Dot, kRows, 1>(rows, w, g.width - whole, sums);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) acc[i][j] = sums[i][0];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) finish<kOuts, Weight, Out>(acc[i], g, places[i], out);
}

template <class Dot, class Out, int kRows>
void outputs(const Gemm& g, int64_t row, int64_t begin, int64_t end) {
  constexpr int kOuts = outputs_beside(kRows);
  constexpr int64_t kItem = sizeof(typename Dot::Weight);
  constexpr int64_t kBlock = kRowBytes / (kRows * Dot::kStep * sizeof(typename Dot::Packed));
  const int64_t steps = g.width / Dot::kStep;
  const int64_t tile_bytes = kOuts * g.weight_stride * kItem;
  const int64_t far = tile_bytes > 0 ? (kPrefetchBytes + tile_bytes - 1) / tile_bytes : 0;
  const int64_t next = g.ids ? 0 : far * kOuts * g.weight_stride;  // whole tiles: lines meet rows
  Place places[kRows];
  for (int i = 0; i < kRows; ++i) places[i] = place_of(g, row + i);
  int64_t out = begin;
  if (kRows <= kMaxStreamRows && g.width * kItem < kShortRowBytes) {
    for (; out + kOuts <= end; out += kOuts) stream<Dot, Out, kRows, kOuts>(g, places, row, out);
  }
  if (steps > kBlock) {
    constexpr int64_t kGroup = kTilesPerBlock * kOuts;
    const int64_t group = g.ids ? 0 : kGroup * g.weight_stride;
    for (; out + kGroup <= end; out += kGroup) {
      tiles<Dot, Out, kRows, kOuts, kTilesPerBlock>(g, places, row, out, kBlock, group);
    }
  }
  for (; out + kOuts <= end; out += kOuts) {
    tiles<Dot, Out, kRows, kOuts, 1>(g, places, row, out, steps, next);
  }
  for (; out < end; ++out) tiles<Dot, Out, kRows, 1, 1>(g, places, row, out, steps, next);
}

template <class Dot, class Out>
void rows_of_height(const Gemm& g, const TileRows& rows, int64_t begin, int64_t end) {
  switch (rows.count) {
    case 1:
      return outputs<Dot, Out, 1>(g, rows.first, begin, end);
    case 2:
      return outputs<Dot, Out, 2>(g, rows.first, begin, end);
    case 3:
      return outputs<Dot, Out, 3>(g, rows.first, begin, end);
    case 4:
      return outputs<Dot, Out, 4>(g, rows.first, begin, end);
#ifdef __AVX512F__
    case 5:
      return outputs<Dot, Out, 5>(g, rows.first, begin, end);
    case 6:
      return outputs<Dot, Out, 6>(g, rows.first, begin, end);
    case 7:
      return outputs<Dot, Out, 7>(g, rows.first, begin, end);
    default:
      return outputs<Dot, Out, 8>(g, rows.first, begin, end);
#endif
  }
}

// A step of a packed row.
KANGAROO_INLINE void place_step(const float* values, float factor, float* to) {
  store(to, load(values) * factor);
}

KANGAROO_INLINE void place_step(const Bf16* values, float factor, float* to) {
  store(to, even_lanes(values) * factor);
  store(to + kLanes, odd_lanes(values) * factor);
}

KANGAROO_INLINE void place_step(const Bf16* values, float, Bf16* to) {
  __builtin_memcpy(to, values, 2 * kLanes * sizeof(Bf16));
}

}  // namespace

template <class Dot>
std::size_t panel_bytes(int64_t num_rows, int64_t width) {
  return static_cast<std::size_t>(num_rows * num_steps<Dot>(width) * Dot::kStep) *
         sizeof(typename Dot::Packed);
}

template <class Dot>
void pack_row(const PackedRow& source, int64_t row, int64_t num_rows, char* panel) {
  using T = typename Dot::Weight;
  auto* to = reinterpret_cast<typename Dot::Packed*>(panel);
  const auto* x = static_cast<const T*>(source.x);
  const auto* norm = static_cast<const T*>(source.norm);
  const float inverse = norm ? inverse_rms(x, source.eps, source.width) : 0.0f;
  const TileRows tile = tile_of(row, num_rows);
  to += (tile.first * num_steps<Dot>(source.width) + row - tile.first) * Dot::kStep;
  for (int64_t step = 0; step < num_steps<Dot>(source.width); ++step) {
    alignas(64) T values[Dot::kStep] = {};
    const int64_t first = step * Dot::kStep;
    const int64_t left = source.width - first < Dot::kStep ? source.width - first : Dot::kStep;
    each_step(left, [&](int64_t at, int64_t lanes) {
      Floats v = load_lanes(x + first + at, lanes);
      if (norm) v = normed(v, inverse, norm + first + at, lanes);
      store_lanes(values + at, v, lanes);
    });
    place_step(values, source.factor, to + step * tile.count * Dot::kStep);
  }
}

template <class Dot>
void pack(const Packing& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    pack_row<Dot>({p.x.at(row), p.norm, p.eps, 1.0f, p.width}, row, p.num_rows, p.panel);
  }
}

template <class Dot, class Out>
void gemm(const Gemm& g) {
  const int64_t row_bytes = g.width * static_cast<int64_t>(sizeof(typename Dot::Weight));
  int64_t block =
      kBlockBytes / (row_bytes > 0 ? row_bytes : 1) / kOutputsTogether * kOutputsTogether;
  if (block < kOutputsTogether) block = kOutputsTogether;
  if (g.num_rows <= kTileRows) block = g.end - g.begin;
  for (int64_t begin = g.begin; begin < g.end; begin += block) {
    const int64_t end = begin + block < g.end ? begin + block : g.end;
    for (int64_t row = 0; row < g.num_rows;) {
      const TileRows rows = tile_of(row, g.num_rows);
      rows_of_height<Dot, Out>(g, rows, begin, end);
      row += rows.count;
    }
  }
}

template std::size_t panel_bytes<FloatDot>(int64_t, int64_t);
template void pack_row<FloatDot>(const PackedRow&, int64_t, int64_t, char*);
template void pack<FloatDot>(const Packing&, int64_t, int64_t);
template void gemm<FloatDot, float>(const Gemm&);
template std::size_t panel_bytes<WideDot>(int64_t, int64_t);
template void pack_row<WideDot>(const PackedRow&, int64_t, int64_t, char*);
template void pack<WideDot>(const Packing&, int64_t, int64_t);
template void gemm<WideDot, float>(const Gemm&);
template void gemm<PairDot, Bf16>(const Gemm&);
template void gemm<ByteDot, float>(const Gemm&);
template void gemm<WideByteDot, float>(const Gemm&);
#ifdef __AVX512BF16__
template std::size_t panel_bytes<PairDot>(int64_t, int64_t);
template void pack<PairDot>(const Packing&, int64_t, int64_t);
template void gemm<PairDot, float>(const Gemm&);
#endif

}  // namespace kangaroo::KANGAROO_ISA
