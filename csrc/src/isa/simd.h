// Vectors of kLanes floats. Compiled once per instruction set, each in its own namespace
// KANGAROO_ISA.
//
// Files under isa/ use no std:: templates: the linker merges those across instruction sets, and
// code compiled for AVX-512 could then run on a machine without it.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define KANGAROO_INLINE inline __attribute__((always_inline))

namespace kangaroo::KANGAROO_ISA {

#ifdef __AVX512F__
constexpr int64_t kLanes = 16;
#else
constexpr int64_t kLanes = 8;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
// Also what pairs of bfloat16 are loaded as, hence no more aligned than they are.
typedef float FloatsUnaligned __attribute__((vector_size(4 * kLanes), aligned(2), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef uint16_t HalvesUnaligned __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

// An element of 16 bits with the exponent of a float.
struct Bf16 {
  uint16_t bits;
};

KANGAROO_INLINE Ints broadcast(int32_t value) { return Ints{} + value; }

// Adding to zero would lose the sign of -0.
KANGAROO_INLINE Floats broadcast(float value) {
  int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return reinterpret_cast<Floats>(broadcast(bits));
}

KANGAROO_INLINE Ints lane_numbers() {
#ifdef __AVX512F__
  return Ints{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
  return Ints{0, 1, 2, 3, 4, 5, 6, 7};
#endif
}

KANGAROO_INLINE Floats load(const float* from) {
  return *reinterpret_cast<const FloatsUnaligned*>(from);
}

// Compilers fold a load into each of its uses; where uses outnumber loads, the loads then bind.
KANGAROO_INLINE Floats load_once(const float* from) {
  Floats value = load(from);
#if defined(__AVX512F__)
  asm("" : "+v"(value));
#elif defined(__AVX2__)
  asm("" : "+x"(value));
#endif
  return value;
}

KANGAROO_INLINE void store(float* to, Floats value) {
  *reinterpret_cast<FloatsUnaligned*>(to) = value;
}

KANGAROO_INLINE Floats widen(Halves bits) {
  return reinterpret_cast<Floats>(__builtin_convertvector(bits, Ints) << 16);
}

KANGAROO_INLINE Floats load(const Bf16* from) {
  return widen(*reinterpret_cast<const HalvesUnaligned*>(from));
}

// To the nearest, ties to even; a NaN stays one.
KANGAROO_INLINE Ints rounded_bits(Floats value) {
  const Ints bits = reinterpret_cast<Ints>(value);
  const Ints rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return value == value ? rounded : (bits >> 16) | 0x40;
}

// Of pairs of bfloat16 the first ones, and the second.
KANGAROO_INLINE Floats even_lanes(const Bf16* w) {
  typedef int32_t Unaligned __attribute__((vector_size(4 * kLanes), aligned(2), may_alias));
  return reinterpret_cast<Floats>(*reinterpret_cast<const Unaligned*>(w) << 16);
}

KANGAROO_INLINE Floats odd_lanes(const Bf16* w) {
  typedef int32_t Unaligned __attribute__((vector_size(4 * kLanes), aligned(2), may_alias));
  const Ints pairs = *reinterpret_cast<const Unaligned*>(w);
  return reinterpret_cast<Floats>(pairs & static_cast<int32_t>(0xffff0000));
}

KANGAROO_INLINE void store(Bf16* to, Floats value) {
  *reinterpret_cast<HalvesUnaligned*>(to) = __builtin_convertvector(rounded_bits(value), Halves);
}

// `value` as an element of type T would keep it.
KANGAROO_INLINE Floats as_kept(Floats value, const float*) { return value; }
KANGAROO_INLINE Floats as_kept(Floats value, const Bf16*) {
  return reinterpret_cast<Floats>(rounded_bits(value) << 16);
}

#if defined(__AVX512F__)

// kLanes integers of 8 bits, or of 16. Compilers convert such vectors element by element.
KANGAROO_INLINE Ints widen8(const int8_t* from) {
  return reinterpret_cast<Ints>(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

KANGAROO_INLINE Ints widen16(const int8_t* from) {
  return reinterpret_cast<Ints>(
      _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}

KANGAROO_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }

KANGAROO_INLINE __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1);
}

// The first `count` lanes, zeros behind; memory behind is not touched.
KANGAROO_INLINE Floats load_first(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), from);
}

KANGAROO_INLINE void store_first(float* to, Floats value, int64_t count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), value);
}

// Sums of four vectors: lanes i and i + 8, then ((0+1)+(2+3)) + ((4+5)+(6+7)).
KANGAROO_INLINE __m256 fold(Floats v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

#elif defined(__AVX2__)

KANGAROO_INLINE Ints widen8(const int8_t* from) {
  return reinterpret_cast<Ints>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}

KANGAROO_INLINE Ints widen16(const int8_t* from) {
  return reinterpret_cast<Ints>(
      _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

KANGAROO_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }

KANGAROO_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

KANGAROO_INLINE Floats load_first(const float* from, int64_t count) {
  return _mm256_maskload_ps(from, first_lanes(count));
}

KANGAROO_INLINE void store_first(float* to, Floats value, int64_t count) {
  _mm256_maskstore_ps(to, first_lanes(count), value);
}

// Sums of four vectors, each ((0+1)+(2+3)) + ((4+5)+(6+7)).
KANGAROO_INLINE __m256 fold(Floats v) { return v; }

#else

KANGAROO_INLINE Ints widen8(const int8_t* from) {
  typedef int8_t Unaligned __attribute__((vector_size(kLanes), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Unaligned*>(from), Ints);
}

KANGAROO_INLINE Ints widen16(const int8_t* from) {
  typedef int16_t Unaligned __attribute__((vector_size(2 * kLanes), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Unaligned*>(from), Ints);
}

KANGAROO_INLINE Floats fma(Floats a, Floats b, Floats c) {
#ifdef __FP_FAST_FMAF
  Floats result;
  for (int lane = 0; lane < kLanes; ++lane)
    result[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return result;
#else
  return a * b + c;  // never contracted: -ffp-contract=off
#endif
}

KANGAROO_INLINE Floats load_first(const float* from, int64_t count) {
  Floats result = {};
  for (int64_t lane = 0; lane < count; ++lane) result[lane] = from[lane];
  return result;
}

KANGAROO_INLINE void store_first(float* to, Floats value, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

KANGAROO_INLINE float sum_portable(Floats v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

#endif

KANGAROO_INLINE Floats lanes_of(const int8_t* w) {
  return __builtin_convertvector(widen8(w), Floats);
}

// Of pairs the first ones, or the second.
KANGAROO_INLINE Floats paired_lanes_of(const int8_t* w, int part) {
  const Ints pairs = widen16(w);
  return __builtin_convertvector(part == 0 ? pairs << 24 >> 24 : pairs >> 8, Floats);
}

#if defined(__AVX2__)

KANGAROO_INLINE void sum4(Floats a, Floats b, Floats c, Floats d, float* out) {
  const __m256 halves =
      _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

#else

KANGAROO_INLINE void sum4(Floats a, Floats b, Floats c, Floats d, float* out) {
  out[0] = sum_portable(a);
  out[1] = sum_portable(b);
  out[2] = sum_portable(c);
  out[3] = sum_portable(d);
}

#endif

KANGAROO_INLINE Floats load_first(const Bf16* from, int64_t count) {
  Halves bits = {};
  __builtin_memcpy(&bits, from, static_cast<std::size_t>(2 * count));
  return widen(bits);
}

KANGAROO_INLINE void store_first(Bf16* to, Floats value, int64_t count) {
  const Halves bits = __builtin_convertvector(rounded_bits(value), Halves);
  __builtin_memcpy(to, &bits, static_cast<std::size_t>(2 * count));
}

KANGAROO_INLINE float to_float(float value) { return value; }

KANGAROO_INLINE float to_float(Bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}

KANGAROO_INLINE void keep(float* to, float value) { *to = value; }

KANGAROO_INLINE void keep(Bf16* to, float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value == value ? rounded : (bits >> 16) | 0x40);
}

template <class T>
KANGAROO_INLINE Floats load_lanes(const T* from, int64_t lanes) {
  return lanes == kLanes ? load(from) : load_first(from, lanes);
}

template <class T>
KANGAROO_INLINE void store_lanes(T* to, Floats value, int64_t lanes) {
  if (lanes == kLanes) {
    store(to, value);
  } else {
    store_first(to, value, lanes);
  }
}

// body(offset, lanes) over [0, count) in steps of kLanes; the last step may have fewer lanes.
template <class Body>
KANGAROO_INLINE void each_step(int64_t count, const Body& body) {
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes) body(at, kLanes);
  if (at < count) body(at, count - at);
}

KANGAROO_INLINE float sum(Floats v) {
  float sums[4];
  sum4(v, v, v, v, sums);
  return sums[0];
}

KANGAROO_INLINE Floats keep_first(Floats v, int64_t count, Floats behind) {
  return lane_numbers() < broadcast(static_cast<int32_t>(count)) ? v : behind;
}

KANGAROO_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }

KANGAROO_INLINE float max_lane(Floats v) {
  float best = v[0];
  for (int lane = 1; lane < kLanes; ++lane) best = v[lane] > best ? v[lane] : best;
  return best;
}

// e^x within 2 ulp: 2^n e^r with |r| <= ln(2) / 2; exact at 0, 0 below -104, infinite above 89.
KANGAROO_INLINE Floats exp(Floats x) {
  x = x < broadcast(-104.0f) ? broadcast(-104.0f) : x;
  x = x > broadcast(89.0f) ? broadcast(89.0f) : x;
  const Floats magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = fma(x, broadcast(1.44269504f), magic);
  const Floats n = shifted - magic;
  Floats r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + broadcast(1.0f);
  // In two factors, so that the ends of the range underflow and overflow as they should.
  const Ints exponent = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(magic);
  const Ints half = exponent >> 1;
  const Ints low = (half + 127) << 23;
  const Ints high = (exponent - half + 127) << 23;
  return p * reinterpret_cast<Floats>(low) * reinterpret_cast<Floats>(high);
}

}  // namespace kangaroo::KANGAROO_ISA
