// Eight float lanes. Compiled once per instruction set, each in its own namespace KANGAROO_ISA.
//
// Files under isa/ use no std:: templates: the linker merges those across instruction sets, and
// code compiled for AVX2 could then run on a machine without it.
#pragma once

#include <cstdint>

#if defined(__AVX2__) && defined(__FMA__)
#define KANGAROO_AVX2 1
#include <immintrin.h>
#endif

#define KANGAROO_INLINE inline __attribute__((always_inline))

namespace kangaroo::KANGAROO_ISA {

constexpr int64_t kLanes = 8;

typedef float F8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef float F8Unaligned __attribute__((vector_size(32), aligned(4), may_alias));

KANGAROO_INLINE F8 broadcast(float value) {
  return F8{value, value, value, value, value, value, value, value};
}

KANGAROO_INLINE I8 broadcast(int32_t value) {
  return I8{value, value, value, value, value, value, value, value};
}

KANGAROO_INLINE F8 load(const float* from) { return *reinterpret_cast<const F8Unaligned*>(from); }

KANGAROO_INLINE void store(float* to, F8 value) { *reinterpret_cast<F8Unaligned*>(to) = value; }

#ifdef KANGAROO_AVX2

KANGAROO_INLINE F8 fma(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a, b, c); }

KANGAROO_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Compilers fold a load into each of its uses; where uses outnumber loads, the loads then bind.
KANGAROO_INLINE F8 load_once(const float* from) {
  F8 value = load(from);
  asm("" : "+x"(value));
  return value;
}

// The first `count` lanes, zeros behind; memory behind is not touched.
KANGAROO_INLINE F8 load_first(const float* from, int64_t count) {
  return _mm256_maskload_ps(from, first_lanes(count));
}

KANGAROO_INLINE void store_first(float* to, F8 value, int64_t count) {
  _mm256_maskstore_ps(to, first_lanes(count), value);
}

// Sums of four vectors, each ((0+1)+(2+3)) + ((4+5)+(6+7)): the one horizontal order of the house.
KANGAROO_INLINE void sum4(F8 a, F8 b, F8 c, F8 d, float* out) {
  const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

#else

KANGAROO_INLINE F8 load_once(const float* from) { return load(from); }

KANGAROO_INLINE F8 fma(F8 a, F8 b, F8 c) {
#ifdef __FP_FAST_FMAF
  F8 result;
  for (int lane = 0; lane < kLanes; ++lane)
    result[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return result;
#else
  return a * b + c;  // never contracted: -ffp-contract=off
#endif
}

KANGAROO_INLINE F8 load_first(const float* from, int64_t count) {
  F8 result = {};
  for (int64_t lane = 0; lane < count; ++lane) result[lane] = from[lane];
  return result;
}

KANGAROO_INLINE void store_first(float* to, F8 value, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

KANGAROO_INLINE float sum_portable(F8 v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

KANGAROO_INLINE void sum4(F8 a, F8 b, F8 c, F8 d, float* out) {
  out[0] = sum_portable(a);
  out[1] = sum_portable(b);
  out[2] = sum_portable(c);
  out[3] = sum_portable(d);
}

#endif

KANGAROO_INLINE float sum(F8 v) {
  float sums[4];
  sum4(v, v, v, v, sums);
  return sums[0];
}

KANGAROO_INLINE I8 lane_numbers() { return I8{0, 1, 2, 3, 4, 5, 6, 7}; }

KANGAROO_INLINE F8 keep_first(F8 v, int64_t count, F8 behind) {
  return lane_numbers() < broadcast(static_cast<int32_t>(count)) ? v : behind;
}

KANGAROO_INLINE F8 max(F8 a, F8 b) { return a > b ? a : b; }

KANGAROO_INLINE float max_lane(F8 v) {
  float best = v[0];
  for (int lane = 1; lane < kLanes; ++lane) best = v[lane] > best ? v[lane] : best;
  return best;
}

// e^x within 2 ulp: 2^n e^r with |r| <= ln(2) / 2; exact at 0, 0 below -104, infinite above 89.
KANGAROO_INLINE F8 exp(F8 x) {
  x = x < broadcast(-104.0f) ? broadcast(-104.0f) : x;
  x = x > broadcast(89.0f) ? broadcast(89.0f) : x;
  const F8 magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F8 shifted = fma(x, broadcast(1.44269504f), magic);
  const F8 n = shifted - magic;
  F8 r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  F8 p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + broadcast(1.0f);
  // In two factors, so that the ends of the range underflow and overflow as they should.
  const I8 exponent = reinterpret_cast<I8>(shifted) - reinterpret_cast<I8>(magic);
  const I8 half = exponent >> 1;
  const I8 low = (half + broadcast(127)) << 23;
  const I8 high = (exponent - half + broadcast(127)) << 23;
  return p * reinterpret_cast<F8>(low) * reinterpret_cast<F8>(high);
}

}  // namespace kangaroo::KANGAROO_ISA
