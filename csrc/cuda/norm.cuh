// RMSNorm in front of a product. Every block has it of its own rows, behind its first loads of the
// weight: a launch of its own would take longer than that second reading of few rows.
#pragma once

#include "device.cuh"

namespace kangaroo {

struct Norm {
  const void* weight;  // [width]; NULL: no norm
  float eps;
};

// 1 / RMS of rows `first` to `first + live` of x, to the first of `squares` [kWarps, kRows] in
// shared memory. The whole block sums each row, in an order that depends on the width alone.
template <class T, int kWarps, int kRows>
__device__ __forceinline__ void inverse_rms_of_rows(const Rows& x, int first, int live, int width,
                                                    float eps, bool aligned, float* squares) {
  constexpr int kTogether = 4;  // rows whose loads are under way at once
  const int thread = static_cast<int>(threadIdx.x);
  for (int row = 0; row < live; row += kTogether) {
    const T* rows[kTogether];
    float sums[kTogether] = {};
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      rows[i] = x.at<const T>(first + (row + i < live ? row + i : row));
    }
    for (int column = thread * kUnit<T>; column < width; column += kWarps * kWarpSize * kUnit<T>) {
      uint4 units[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        units[i] = load_unit(rows[i] + column, row + i < live ? width - column : 0, aligned);
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        float values[kUnit<T>];
        widen<T>(units[i], values);
#pragma unroll
        for (int k = 0; k < kUnit<T>; ++k) sums[i] = fmaf(values[k], values[k], sums[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (row + i >= live) break;
      const float sum = warp_sum(sums[i]);
      if (thread % kWarpSize == 0) squares[thread / kWarpSize * kRows + row + i] = sum;
    }
  }
  __syncthreads();
  if (thread < live) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += squares[warp * kRows + thread];
    squares[thread] = inverse_rms(sum, width, eps);
  }
  __syncthreads();
}

// A word of a row, rounded where PyTorch rounds. Two numbers of 16 bits have a product of so few
// bits that a multiplication of their own type rounds it as float32 and then that type would.
template <class T>
__device__ __forceinline__ unsigned normalized_word(unsigned x, float inverse, unsigned weight) {
  const float low = wide_part<T>(x, 0) * inverse;
  if constexpr (sizeof(T) == 4) {
    return bits_of(low * wide_part<T>(weight, 0));
  } else {
    return multiplied<T>(narrow_pair<T>(low, wide_part<T>(x, 1) * inverse), weight);
  }
}

template <class T>
__device__ __forceinline__ void normalize(uint4& x, float inverse, const uint4& weight) {
  x.x = normalized_word<T>(x.x, inverse, weight.x);
  x.y = normalized_word<T>(x.y, inverse, weight.y);
  x.z = normalized_word<T>(x.z, inverse, weight.z);
  x.w = normalized_word<T>(x.w, inverse, weight.w);
}

}  // namespace kangaroo
