// Numbers as integers that rank as they do, with the lowest id first among equals.
#pragma once

#include "device.cuh"

namespace kangaroo {

// NaN ranks above all numbers, and -0 with 0. At least 1, so that 0 ranks below everything.
__device__ __forceinline__ uint64_t ranked(float value, unsigned id) {
  const unsigned bits = __float_as_uint(value + 0.0f);
  const unsigned order = value != value ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | ~id;
}

__device__ __forceinline__ unsigned id_of(uint64_t rank) { return ~static_cast<unsigned>(rank); }

// The number again, where it was one.
__device__ __forceinline__ float value_of(uint64_t rank) {
  const auto order = static_cast<unsigned>(rank >> 32);
  return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

__device__ __forceinline__ uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ __forceinline__ uint64_t warp_largest(uint64_t rank) {
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) {
    rank = larger(rank, __shfl_xor_sync(kAllLanes, rank, apart));
  }
  return rank;
}

}  // namespace kangaroo
