// Stands in for NVIDIA's header of this name.
#pragma once

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }

inline unsigned short __half_as_ushort(__half value) { return value.bits; }

inline float __half2float(__half value) {
  const unsigned exponent = value.bits >> 10 & 31;
  const unsigned fraction = value.bits & 1023;
  const unsigned wide = exponent == 31 ? 255 : exponent + 112;
  const float size = exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f
                                   : __uint_as_float(wide << 23 | fraction << 13);
  return value.bits >> 15 ? -size : size;
}

inline __half __float2half_rn(float value) {
  const unsigned sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return {0x7fff};
  const float size = std::fabs(value);
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  // The distance of neighbours here, at least that of the subnormal numbers.
  int exponent = -24;
  if (size >= std::ldexp(1.0f, -14)) exponent = std::ilogb(size) - 10;
  const auto steps = static_cast<unsigned>(std::nearbyint(std::ldexp(size, -exponent)));
  // A carry out of the fraction is a carry into the exponent.
  return {static_cast<uint16_t>(sign | ((static_cast<unsigned>(exponent + 24) << 10) + steps))};
}
