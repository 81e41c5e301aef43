// What lies in memory rearranged: words of 32 bits transposed, elements of 16 bits interleaved.
#pragma once

#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

// Word j of from[i] becomes word i of row j of `to`, for the first `count` of i: so many words are
// a row there.
#ifdef __AVX512F__

KANGAROO_INLINE void transpose(const void* const (&from)[16], int64_t count, void* to) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from[i]);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // quarters 0, 2 and 1, 3 of four rows and of the next four
    b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
  }
  const __mmask16 kept = first_lanes(count);
  const auto put = [&](int row, __m512i words) {
    _mm512_mask_storeu_epi32(static_cast<int32_t*>(to) + row * count, kept, words);
  };
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    put(i, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    put(i + 4, _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88));
    put(i + 8, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
    put(i + 12, _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd));
  }
}

// low and high <- a[0], b[0], a[1], b[1], ... of 32 elements each.
KANGAROO_INLINE void interleave(const Bf16* a, const Bf16* b, Bf16* low, Bf16* high) {
  const __m512i first = _mm512_loadu_si512(a), second = _mm512_loadu_si512(b);
  const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i odd = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  // Within quarters first, whose halves then go to their places.
  const __m512i lower = _mm512_unpacklo_epi16(first, second);
  const __m512i upper = _mm512_unpackhi_epi16(first, second);
  _mm512_storeu_si512(low, _mm512_permutex2var_epi64(lower, even, upper));
  _mm512_storeu_si512(high, _mm512_permutex2var_epi64(lower, odd, upper));
}

#else

KANGAROO_INLINE void interleave(const Bf16* a, const Bf16* b, Bf16* low, Bf16* high) {
  for (int64_t i = 0; i < 16; ++i) {
    low[2 * i] = a[i];
    low[2 * i + 1] = b[i];
    high[2 * i] = a[i + 16];
    high[2 * i + 1] = b[i + 16];
  }
}

KANGAROO_INLINE void transpose(const void* const (&from)[16], int64_t count, void* to) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < 16; ++j) {
      __builtin_memcpy(static_cast<char*>(to) + 4 * (j * count + i),
                       static_cast<const char*>(from[i]) + 4 * j, 4);
    }
  }
}

#endif

}  // namespace kangaroo::KANGAROO_ISA
