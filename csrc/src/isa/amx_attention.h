// Scores and weighted values of a chunk of 64 slots, by AMX: rows share each key and value that is
// loaded, and a row's sums have one order whatever the rows beside it.
#pragma once

#include "isa/amx.h"
#include "isa/tiles.h"
#include "isa/transpose.h"

namespace kangaroo::KANGAROO_ISA {

// Scores of 32 slots by `rows` are tiles 0 and 1, of queries 2 and keys 3; weighted values of 32
// dimensions are 6 and 7, of weights 4 and values 5.
KANGAROO_INLINE void configure_attention(int64_t rows) {
  TileConfig config;
  const auto row_bytes = static_cast<uint16_t>(4 * rows);
  config.row_bytes[0] = config.row_bytes[1] = config.row_bytes[2] = row_bytes;
  for (int tile = 3; tile < 8; ++tile) config.row_bytes[tile] = 64;
  config.rows[4] = config.rows[6] = config.rows[7] = static_cast<uint8_t>(rows);
  configure(config);
}

// Tile 3 <- dimensions [d, d + 32) of 16 keys from slot `slot` on, zeros behind the last.
KANGAROO_INLINE void load_keys(const AttentionTile& t, int64_t slot, int64_t d) {
  const Bf16* keys = static_cast<const Bf16*>(t.k) + slot * t.slot_stride + d;
  const int64_t left = t.head_dim - d;
  if (left >= TileDot::kStep) return load_tile<3>(keys, t.slot_stride * 2);
  alignas(64) Bf16 edge[16][TileDot::kStep] = {};
  for (int64_t i = 0; i < 16; ++i) {
    __builtin_memcpy(edge[i], keys + i * t.slot_stride, static_cast<std::size_t>(2 * left));
  }
  load_tile<3>(edge, 64);
}

// scores[row][slot] <- scale q . k of `num_slots` slots from `first` on, a multiple of 16. Queries
// were laid out by tile_pack.
inline void tile_scores(const AttentionTile& t, const Bf16* queries, int64_t first,
                        int64_t num_slots, float* scores, int64_t row_stride) {
  alignas(64) float sums[2][16 * 16], by_row[16][16];
  for (int64_t slot = 0; slot < num_slots; slot += 32) {
    const bool both = slot + 16 < num_slots;
    const Bf16* x = queries;
    zero<0>();
    zero<1>();
    for (int64_t d = 0; d < t.head_dim; d += TileDot::kStep, x += TileDot::kStep * t.num_rows) {
      load_tile<2>(x, 4 * t.num_rows);
      load_keys(t, first + slot, d);
      multiply_tiles<0, 3, 2>();
      if (!both) continue;
      load_keys(t, first + slot + 16, d);
      multiply_tiles<1, 3, 2>();
    }
    store_tile<0>(sums[0], 4 * t.num_rows);
    store_tile<1>(sums[1], 4 * t.num_rows);
    for (int64_t half = 0; half < 1 + both; ++half) {
      const void* by_slot[16];
      for (int64_t j = 0; j < 16; ++j) by_slot[j] = sums[half] + j * t.num_rows;
      transpose(by_slot, 16, by_row);
      for (int64_t row = 0; row < t.num_rows; ++row) {
        for (int64_t at = 0; at < 16; at += kLanes) {
          store(scores + row * row_stride + slot + 16 * half + at,
                load(by_row[row] + at) * broadcast(t.scale));
        }
      }
    }
  }
}

// Dimensions [d, d + 32) of 32 values as pairs of slots: 16 dimensions, then the others.
KANGAROO_INLINE void pair_values(const AttentionTile& t, const Bf16* values, int64_t d,
                                 Bf16 (&pairs)[2][16][32]) {
  const int64_t left = t.head_dim - d < 32 ? t.head_dim - d : 32;
  alignas(64) Bf16 rows[2][32] = {};
  for (int64_t pair = 0; pair < 16; ++pair) {
    const Bf16* from[2] = {values + 2 * pair * t.slot_stride + d,
                           values + (2 * pair + 1) * t.slot_stride + d};
    if (left < 32) {
      for (int i = 0; i < 2; ++i) {
        __builtin_memcpy(rows[i], from[i], static_cast<std::size_t>(2 * left));
        from[i] = rows[i];
      }
    }
    interleave(from[0], from[1], pairs[0][pair], pairs[1][pair]);
  }
}

// Weights of 64 slots as sums of two of bfloat16, which keep 16 bits of them. A value that is
// infinite becomes no number: the second part of its weight may be 0.
struct SplitWeights {
  alignas(64) Bf16 parts[2][2][16][32];  // of a part the halves of the chunk, by rows

  SplitWeights(const float* weights, int64_t num_rows, int64_t row_stride) {
    for (int64_t row = 0; row < num_rows; ++row) {
      for (int64_t at = 0; at < 64; at += kLanes) {
        const Floats weight = load(weights + row * row_stride + at);
        Bf16* first = &parts[0][at / 32][row][at % 32];
        store(first, weight);
        store(&parts[1][at / 32][row][at % 32], weight - as_kept(weight, first));
      }
    }
  }
};

// acc[row] += the sum over 64 slots of weight times value, for the rows of `wanted`; what other
// rows add is dropped.
inline void tile_values(const AttentionTile& t, const Bf16* values, const float* weights,
                        int64_t weight_stride, uint32_t wanted, float* acc, int64_t acc_stride) {
  const SplitWeights split(weights, t.num_rows, weight_stride);
  alignas(64) Bf16 pairs[2][16][32];
  alignas(64) float sums[2][16][16];
  for (int64_t d = 0; d < t.head_dim; d += 32) {
    zero<6>();
    zero<7>();
    for (int64_t half = 0; half < 2; ++half) {
      pair_values(t, values + 32 * half * t.slot_stride, d, pairs);
      for (const auto& part : split.parts) {
        load_tile<4>(part[half], 64);
        load_tile<5>(pairs[0], 64);
        multiply_tiles<6, 4, 5>();
        load_tile<5>(pairs[1], 64);
        multiply_tiles<7, 4, 5>();
      }
    }
    store_tile<6>(sums[0], 64);
    store_tile<7>(sums[1], 64);
    for (int64_t row = 0; row < t.num_rows; ++row) {
      if (!((wanted >> row) & 1)) continue;
      for (int64_t at = 0; at < 32 && d + at < t.head_dim; at += kLanes) {
        float* to = acc + row * acc_stride + d + at;
        store(to, load(to) + load(&sums[at / 16][row][at % 16]));
      }
    }
  }
}

}  // namespace kangaroo::KANGAROO_ISA
