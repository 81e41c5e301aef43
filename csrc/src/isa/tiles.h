// The AMX instructions that products need; without the hardware, what they do, in C++.
#pragma once

#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

// Of every tile the rows, 16 unless told otherwise, and the bytes of a row.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

#ifdef KANGAROO_AMX_EMULATED

struct Tile {
  char bytes[16][64];
};

inline thread_local Tile tile_registers[8];
inline thread_local TileConfig configured;

inline void configure(const TileConfig& config) { configured = config; }
inline void release() { configured = {}; }

template <int kTile>
void zero() {
  tile_registers[kTile] = {};
}

template <int kTile>
void load_tile(const void* from, int64_t stride) {
  tile_registers[kTile] = {};
  for (int row = 0; row < configured.rows[kTile]; ++row) {
    __builtin_memcpy(tile_registers[kTile].bytes[row],
                     static_cast<const char*>(from) + row * stride, configured.row_bytes[kTile]);
  }
}

template <int kTile>
void store_tile(void* to, int64_t stride) {
  for (int row = 0; row < configured.rows[kTile]; ++row) {
    __builtin_memcpy(static_cast<char*>(to) + row * stride, tile_registers[kTile].bytes[row],
                     configured.row_bytes[kTile]);
  }
}

// c[m, n] += a[m, 2 k] b[k, 2 n] + a[m, 2 k + 1] b[k, 2 n + 1], in order of k.
template <int kC, int kA, int kB>
void multiply_tiles() {
  if (configured.rows[kC] != configured.rows[kA] ||
      configured.row_bytes[kA] != 4 * configured.rows[kB] ||
      configured.row_bytes[kC] != configured.row_bytes[kB]) {
    __builtin_trap();  // as the processor does
  }
  float c[16][16];
  Bf16 a[16][32], b[16][32];
  __builtin_memcpy(c, tile_registers[kC].bytes, sizeof c);
  __builtin_memcpy(a, tile_registers[kA].bytes, sizeof a);
  __builtin_memcpy(b, tile_registers[kB].bytes, sizeof b);
  for (int m = 0; m < configured.rows[kC]; ++m) {
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < configured.row_bytes[kC] / 4; ++n) {
        c[m][n] += to_float(a[m][2 * k]) * to_float(b[k][2 * n]);
        c[m][n] += to_float(a[m][2 * k + 1]) * to_float(b[k][2 * n + 1]);
      }
    }
  }
  __builtin_memcpy(tile_registers[kC].bytes, c, sizeof c);
}

#else

// Written out, because compilers' own names for these take no constants of templates.
inline void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }

inline void release() { asm volatile("tilerelease"); }

template <int kTile>
KANGAROO_INLINE void zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

template <int kTile>
KANGAROO_INLINE void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0, %1, 1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
KANGAROO_INLINE void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0, %1, 1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}

template <int kC, int kA, int kB>
KANGAROO_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
}

#endif

}  // namespace kangaroo::KANGAROO_ISA
