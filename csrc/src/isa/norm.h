// RMSNorm of a row, for the op and for rows that are laid out for a product.
#pragma once

#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

// 1 / sqrt(mean(x^2) + eps)
template <class T>
KANGAROO_INLINE float inverse_rms(const T* x, float eps, int64_t width) {
  Floats squares[4] = {};  // four chains hide the latency of one
  int64_t at = 0;
  for (; at + 4 * kLanes <= width; at += 4 * kLanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; ++chain) {
      const Floats v = load(x + at + chain * kLanes);
      squares[chain] = fma(v, v, squares[chain]);
    }
  }
  each_step(width - at, [&](int64_t step, int64_t lanes) {
    const Floats v = load_lanes(x + at + step, lanes);
    squares[0] = fma(v, v, squares[0]);
  });
  const float total = sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  return 1.0f / __builtin_sqrtf(total / static_cast<float>(width) + eps);
}

// Some lanes of a row times its norm; in 16 bits rounded in front of the weight, as PyTorch does.
template <class T>
KANGAROO_INLINE Floats normed(Floats v, float inverse, const T* weight, int64_t lanes) {
  return as_kept(v * inverse, weight) * load_lanes(weight, lanes);
}

}  // namespace kangaroo::KANGAROO_ISA
