#include "isa/gemm.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

// Weights are fetched this far ahead, straight through memory: side by side, the rows of a tile are
// too many and too short streams for the hardware to follow.
constexpr int64_t kPrefetchFloats = 1024;
constexpr int64_t kBlockBytes = 24 * 1024;  // weights that stay in L1 while all rows pass by
constexpr int64_t kBlockStep = 12;          // a multiple of every tile width that blocks are for

// Holds the shorter side of the tile in registers and streams the longer one past it.
template <int kRows, int kOuts>
KANGAROO_INLINE void step(const float* x, int64_t x_stride, const float* w, int64_t width,
                          F8 (&acc)[kRows][kOuts]) {
  constexpr bool kHoldRows = kRows <= kOuts;
  constexpr int kHeld = kHoldRows ? kRows : kOuts;
  constexpr int kPassing = kHoldRows ? kOuts : kRows;
  F8 held[kHeld];
#pragma GCC unroll 8
  for (int i = 0; i < kHeld; ++i) held[i] = load_once(kHoldRows ? x + i * x_stride : w + i * width);
#pragma GCC unroll 8
  for (int j = 0; j < kPassing; ++j) {
    const float* from = kHoldRows ? w + j * width : x + j * x_stride;
    const F8 passing = kHeld > 1 ? load_once(from) : load(from);
#pragma GCC unroll 8
    for (int i = 0; i < kHeld; ++i) {
      F8& sum = kHoldRows ? acc[i][j] : acc[j][i];
      sum = fma(passing, held[i], sum);
    }
  }
}

template <int kRows, int kOuts>
KANGAROO_INLINE void last_step(const float* x, int64_t x_stride, const float* w, int64_t width,
                               int64_t count, F8 (&acc)[kRows][kOuts]) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const F8 xk = load_first(x + i * x_stride, count);
#pragma GCC unroll 8
    for (int j = 0; j < kOuts; ++j)
      acc[i][j] = fma(xk, load_first(w + j * width, count), acc[i][j]);
  }
}

template <int kOuts>
KANGAROO_INLINE void finish(const F8 (&acc)[kOuts], const Gemm& g, int64_t row, int64_t out) {
  float sums[(kOuts + 3) / 4 * 4];
#pragma GCC unroll 2
  for (int j = 0; j < kOuts; j += 4) {
    const F8 b = acc[j + 1 < kOuts ? j + 1 : j];
    const F8 c = acc[j + 2 < kOuts ? j + 2 : j];
    const F8 d = acc[j + 3 < kOuts ? j + 3 : j];
    sum4(acc[j], b, c, d, sums + j);
  }
  const int64_t at = row * g.out_stride + out;
#pragma GCC unroll 8
  for (int j = 0; j < kOuts; ++j) {
    float value = sums[j];
    if (g.bias) value += g.bias[out + j];
    if (g.residual) value = g.residual[at + j] + value;
    g.out[at + j] = value;
  }
}

// kRows rows from `row` on times kOuts outputs from `out` on.
template <int kRows, int kOuts, bool kPrefetch>
KANGAROO_INLINE void tile(const Gemm& g, int64_t row, int64_t out) {
  const float* x = g.x + row * g.x_stride;
  const float* w = g.weight + out * g.width;
  F8 acc[kRows][kOuts] = {};
  const float* ahead = w + kPrefetchFloats;
  int64_t k = 0;
  for (; k + 2 * kLanes <= g.width; k += 2 * kLanes) {
    if (kPrefetch) {
#pragma GCC unroll 8
      for (int j = 0; j < kOuts; ++j) __builtin_prefetch(ahead + j * 2 * kLanes);
      ahead += kOuts * 2 * kLanes;
    }
    step<kRows, kOuts>(x + k, g.x_stride, w + k, g.width, acc);
    step<kRows, kOuts>(x + k + kLanes, g.x_stride, w + k + kLanes, g.width, acc);
  }
  if (k + kLanes <= g.width) {
    step<kRows, kOuts>(x + k, g.x_stride, w + k, g.width, acc);
    k += kLanes;
  }
  if (k < g.width) last_step<kRows, kOuts>(x + k, g.x_stride, w + k, g.width, g.width - k, acc);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) finish<kOuts>(acc[i], g, row + i, out);
}

template <int kRows, int kOuts, bool kPrefetch>
void outputs(const Gemm& g, int64_t row, int64_t begin, int64_t end) {
  constexpr int kHalf = kOuts / 2;
  int64_t out = begin;
  for (; out + kOuts <= end; out += kOuts) tile<kRows, kOuts, kPrefetch>(g, row, out);
  for (; kHalf > 1 && out + kHalf <= end; out += kHalf) tile<kRows, kHalf, false>(g, row, out);
  for (; out < end; ++out) tile<kRows, 1, false>(g, row, out);
}

// All rows times outputs [begin, end): the first tile streams the weights in, the rest find them.
template <bool kPrefetch>
int64_t first_rows(const Gemm& g, int64_t row, int64_t begin, int64_t end) {
  switch (g.num_rows - row) {
    case 1:
      outputs<1, 4, kPrefetch>(g, row, begin, end);
      return row + 1;
    case 2:
      outputs<2, 4, kPrefetch>(g, row, begin, end);
      return row + 2;
    case 3:
    case 5:
    case 6:
      outputs<3, 4, kPrefetch>(g, row, begin, end);
      return row + 3;
    default:
      outputs<4, 3, kPrefetch>(g, row, begin, end);
      return row + 4;
  }
}

}  // namespace

void gemm(const Gemm& g) {
  const int64_t fitting = kBlockBytes / (4 * (g.width > 0 ? g.width : 1));
  int64_t block = fitting / kBlockStep * kBlockStep;
  if (block < kBlockStep) block = kBlockStep;
  if (g.num_rows <= 4) block = g.out_width;
  for (int64_t begin = 0; begin < g.out_width; begin += block) {
    const int64_t end = begin + block < g.out_width ? begin + block : g.out_width;
    int64_t row = first_rows<true>(g, 0, begin, end);
    while (row < g.num_rows) row = first_rows<false>(g, row, begin, end);
  }
}

}  // namespace kangaroo::KANGAROO_ISA
