#include "isa/attention.h"

#include <cstring>

#ifdef KANGAROO_AMX
#include "isa/amx_attention.h"
#endif
#include "isa/gemm.h"
#include "kangaroo/tree_attention.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

constexpr int64_t kChunk = KANGAROO_KV_CHUNK;
constexpr uint64_t kLaneMask = (uint64_t{1} << kLanes) - 1;
constexpr int kMaxWidth = KANGAROO_MAX_HEAD_DIM;
constexpr int64_t kSlotsTogether = 16;               // scores come in whole vectors, and tiles
constexpr int kRowsTogether = kLanes == 16 ? 4 : 2;  // with four vectors each: sums in registers
static_assert(kChunk == 64, "a chunk's visible slots are the bits of one word");

struct Work {
  alignas(64) float q[kMaxAttentionRows * kMaxWidth];  // laid out for the product
  float acc[kMaxAttentionRows * kMaxWidth];            // weighted sum of values so far
  float weights[kMaxAttentionRows * kChunk];
  float top[kMaxAttentionRows];    // largest score so far
  float total[kMaxAttentionRows];  // sum of weights so far
  uint64_t visible[kMaxAttentionRows];
};

KANGAROO_INLINE uint64_t low_bits(int64_t count) {
  if (count <= 0) return 0;
  return count >= kChunk ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

// acc[r] += weights[r, slot] * v[slot] for slots [begin, end) of `visible`, in order.
template <int kRows, int kVectors, class T>
void add_values(float* acc, const float* weights, const T* v, int64_t width, int64_t stride,
                uint64_t visible, int64_t begin, int64_t end) {
  for (int64_t d = 0; d < width; d += kVectors * kLanes) {
    Floats sums[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[r][j] = load(acc + r * kMaxWidth + d + j * kLanes);
    }
    for (int64_t slot = begin; slot < end; ++slot) {
      if (!((visible >> slot) & 1)) continue;
      const T* value = v + slot * stride + d;
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Floats weight = broadcast(weights[r * kChunk + slot]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) {
          sums[r][j] = fma(weight, load(value + j * kLanes), sums[r][j]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) store(acc + r * kMaxWidth + d + j * kLanes, sums[r][j]);
    }
  }
}

// The same for head_dims that are no multiple of eight: the last lanes of every row.
template <class T>
void add_last_values(float* acc, const float* weights, const T* v, int64_t lanes, int64_t stride,
                     uint64_t visible) {
  Floats sums = load_first(acc, lanes);
  for (int64_t slot = 0; slot < kChunk; ++slot) {
    if (!((visible >> slot) & 1)) continue;
    sums = fma(broadcast(weights[slot]), load_first(v + slot * stride, lanes), sums);
  }
  store_first(acc, sums, lanes);
}

template <int kRows, class T>
void add_whole_vectors(float* acc, const float* weights, const T* v, const AttentionTile& tile,
                       uint64_t visible, int64_t begin, int64_t end) {
  const int64_t wide = tile.head_dim / (4 * kLanes) * (4 * kLanes);
  const int64_t whole = tile.head_dim / kLanes * kLanes;
  add_values<kRows, 4>(acc, weights, v, wide, tile.slot_stride, visible, begin, end);
  add_values<kRows, 1>(acc + wide, weights, v + wide, whole - wide, tile.slot_stride, visible,
                       begin, end);
}

// Folds the chunk's scores of row r into its softmax: weights replace the scores.
void soften(Work& work, int r, int64_t width) {
  float* scores = work.weights + r * kChunk;
  const Ints lane_bits = broadcast(1) << lane_numbers();
  const Floats hidden = broadcast(-__builtin_inff());
  Floats best = hidden;
  for (int64_t at = 0; at < kChunk; at += kLanes) {
    const Ints bits =
        broadcast(static_cast<int32_t>((work.visible[r] >> at) & kLaneMask)) & lane_bits;
    const Floats seen = bits != broadcast(0) ? load(scores + at) : hidden;
    store(scores + at, seen);
    best = max(seen, best);
  }
  const float largest = max_lane(best);
  const float top = largest > work.top[r] ? largest : work.top[r];
  const Floats decay = exp(broadcast(work.top[r] - top));
  Floats sums = {};
  for (int64_t at = 0; at < kChunk; at += kLanes) {
    const Floats weights = exp(load(scores + at) - broadcast(top));
    store(scores + at, weights);
    sums = sums + weights;
  }
  work.total[r] = work.total[r] * decay[0] + sum(sums);
  work.top[r] = top;
  float* acc = work.acc + r * kMaxWidth;
  for (int64_t d = 0; d < width; d += kLanes) store(acc + d, load(acc + d) * decay);
}

// The weighted values of the rows from r on, as many as go through memory together; returns how
// many.
template <int kRows, class T>
int add_rows(Work& work, const AttentionTile& tile, const T* v, int r) {
  if constexpr (kRows > 1) {
    if (r + kRows > tile.num_rows) return add_rows<kRows / 2>(work, tile, v, r);
  }
  float* acc = work.acc + r * kMaxWidth;
  const float* weights = work.weights + r * kChunk;
  uint64_t differ = 0;
  for (int i = 1; i < kRows; ++i) differ |= work.visible[r] ^ work.visible[r + i];
  const int64_t shared = kRows == 1 ? 0 : differ ? __builtin_ctzll(differ) : kChunk;
  if (kRows > 1) add_whole_vectors<kRows>(acc, weights, v, tile, work.visible[r], 0, shared);
  for (int i = 0; i < kRows; ++i) {
    const uint64_t visible = work.visible[r + i];
    add_whole_vectors<1>(acc, weights, v, tile, visible, shared, kChunk);
    if (const int64_t lanes = tile.head_dim % kLanes) {
      const int64_t whole = tile.head_dim - lanes;
      add_last_values(acc + whole, weights, v + whole, lanes, tile.slot_stride, visible);
    }
    acc += kMaxWidth;
    weights += kChunk;
  }
  return kRows;
}

// Rows share what all of a few see up to the first slot where they differ; then each goes alone.
template <class Dot>
void add_chunk(Work& work, const AttentionTile& tile, const typename Dot::Weight* v) {
  for (int r = 0; r < tile.num_rows;) r += add_rows<kRowsTogether>(work, tile, v, r);
}

// The scores of all rows in the slots from `chunk` on that any of them sees.
template <class Dot>
void score(Work& work, const AttentionTile& tile, int64_t chunk, uint64_t any) {
  Gemm scores = {};
  scores.panel = reinterpret_cast<const char*>(work.q);
  scores.weight = static_cast<const typename Dot::Weight*>(tile.k) + chunk * tile.slot_stride;
  scores.weight_stride = tile.slot_stride;
  scores.out = {reinterpret_cast<char*>(work.weights), 1, kChunk * int64_t{sizeof(float)}, 0};
  scores.num_rows = tile.num_rows;
  scores.width = tile.head_dim;
  scores.end = (64 - __builtin_clzll(any) + kLanes - 1) / kLanes * kLanes;
  gemm<Dot, float>(scores);
}

// Lays out the queries. Products are between this and `end_products`, of one tile at a time.
template <class Dot>
void begin_products(Work& work, const AttentionTile& tile) {
  for (int r = 0; r < tile.num_rows; ++r) {
    const PackedRow row = {tile.rows[r].q, nullptr, 0.0f, tile.scale, tile.head_dim};
    pack_row<Dot>(row, r, tile.num_rows, reinterpret_cast<char*>(work.q));
  }
}

template <class Dot>
void end_products() {}

#ifdef KANGAROO_AMX

static_assert(kMaxAttentionRows <= TileDot::kRows, "one tile has all rows");

template <>
void begin_products<TileDot>(Work& work, const AttentionTile& tile) {
  PackedTile rows = {};
  for (int r = 0; r < tile.num_rows; ++r) rows.x[r] = static_cast<const Bf16*>(tile.rows[r].q);
  rows.rows = rows.height = tile.num_rows;
  rows.width = tile.head_dim;
  tile_pack(rows, reinterpret_cast<Bf16*>(work.q));
  configure_attention(tile.num_rows);
}

template <>
void end_products<TileDot>() {
  release();
}

template <>
void score<TileDot>(Work& work, const AttentionTile& tile, int64_t chunk, uint64_t any) {
  const int64_t slots = (64 - __builtin_clzll(any) + kSlotsTogether - 1) / kSlotsTogether;
  tile_scores(tile, reinterpret_cast<const Bf16*>(work.q), chunk, slots * kSlotsTogether,
              work.weights, kChunk);
}

// A row that sees the whole chunk has it from tiles, in this chunk and beside any rows.
template <>
void add_chunk<TileDot>(Work& work, const AttentionTile& tile, const Bf16* v) {
  uint32_t whole = 0;
  for (int r = 0; r < tile.num_rows; ++r) {
    if (work.visible[r] == ~uint64_t{0}) {
      whole |= 1u << r;
    } else if (work.visible[r]) {
      add_rows<1>(work, tile, v, r);
    }
  }
  if (whole) tile_values(tile, v, work.weights, kChunk, whole, work.acc, kMaxWidth);
}

#endif

template <class Dot>
void start(Work& work, const AttentionTile& tile) {
  begin_products<Dot>(work, tile);
  for (int r = 0; r < tile.num_rows; ++r) {
    for (int64_t d = 0; d < kMaxWidth && d < tile.head_dim + kLanes; ++d) {
      work.acc[r * kMaxWidth + d] = 0.0f;
    }
    work.top[r] = -__builtin_inff();
    work.total[r] = 0.0f;
  }
}

// The chunks in front of slot `end`, of which every row sees what lies before its prefix_len.
template <class Dot>
void walk(Work& work, const AttentionTile& tile, int64_t end) {
  const int64_t width = (tile.head_dim + kLanes - 1) / kLanes * kLanes;
  for (int64_t chunk = 0; chunk < end; chunk += kChunk) {
    uint64_t any = 0;
    for (int r = 0; r < tile.num_rows; ++r) {
      any |= work.visible[r] = low_bits(tile.rows[r].prefix_len - chunk);
    }
    if (!any) continue;
    score<Dot>(work, tile, chunk, any);
    for (int r = 0; r < tile.num_rows; ++r) {
      if (work.visible[r]) soften(work, r, width);
    }
    add_chunk<Dot>(work, tile,
                   static_cast<const typename Dot::Weight*>(tile.v) + chunk * tile.slot_stride);
  }
}

template <class Dot>
void finish(const Work& work, const AttentionTile& tile) {
  using T = typename Dot::Weight;
  for (int r = 0; r < tile.num_rows; ++r) {
    const float* acc = work.acc + r * kMaxWidth;
    const Floats total = broadcast(work.total[r]);
    each_step(tile.head_dim, [&](int64_t at, int64_t lanes) {
      store_lanes(static_cast<T*>(tile.rows[r].out) + at, load_lanes(acc + at, lanes) / total,
                  lanes);
    });
  }
}

// A row of a tree behind its last whole chunk, in path order: its j-th ancestor is taken for slot
// prefix_len + j, where it will be once the path is committed. So its bits are those of a chain.
template <class Dot>
void follow_path(const Work& work, const AttentionTile& tile, int r) {
  using T = typename Dot::Weight;
  alignas(64) T copy[kChunk * kMaxWidth];  // keys, then values
  const AttentionRow& row = tile.rows[r];
  AttentionTile path = {};
  path.rows[0] = row;
  path.num_rows = 1;
  path.k = path.v = copy;
  path.slot_stride = path.head_dim = tile.head_dim;
  path.scale = tile.scale;
  Work alone;
  start<Dot>(alone, path);
  std::memcpy(alone.acc, work.acc + r * kMaxWidth, sizeof(float) * kMaxWidth);
  alone.top[0] = work.top[r];
  alone.total[0] = work.total[r];
  int64_t slots[kChunk];
  int num_slots;
  const auto gather = [&](const void* from) {
    for (int i = 0; i < num_slots; ++i) {
      std::memcpy(copy + i * tile.head_dim,
                  static_cast<const T*>(from) + slots[i] * tile.slot_stride,
                  sizeof(T) * static_cast<std::size_t>(tile.head_dim));
    }
  };
  const int64_t width = (tile.head_dim + kLanes - 1) / kLanes * kLanes;
  int64_t slot = row.prefix_len / kChunk * kChunk;
  for (uint64_t tree = row.tree; slot < row.prefix_len || tree;) {
    for (num_slots = 0; slot < row.prefix_len; ++slot) slots[num_slots++] = slot;
    for (; tree && num_slots < kChunk; tree &= tree - 1) {
      slots[num_slots++] = row.prefix_len + __builtin_ctzll(tree);
    }
    alone.visible[0] = low_bits(num_slots);
    while (num_slots % kSlotsTogether) slots[num_slots++] = slots[0];
    gather(tile.k);
    score<Dot>(alone, path, 0, alone.visible[0]);
    soften(alone, 0, width);
    gather(tile.v);
    add_chunk<Dot>(alone, path, copy);
  }
  finish<Dot>(alone, path);
}

}  // namespace

template <class Dot>
void attend(const AttentionTile& tile) {
  Work work;
  start<Dot>(work, tile);
  uint64_t tree = 0;
  int64_t longest = 0;
  for (int r = 0; r < tile.num_rows; ++r) {
    tree |= tile.rows[r].tree;
    if (tile.rows[r].prefix_len > longest) longest = tile.rows[r].prefix_len;
  }
  if (tree) {
    walk<Dot>(work, tile, longest / kChunk * kChunk);
    for (int r = 0; r < tile.num_rows; ++r) follow_path<Dot>(work, tile, r);
  } else {
    walk<Dot>(work, tile, longest);
    finish<Dot>(work, tile);
  }
  end_products<Dot>();
}

template void attend<FloatDot>(const AttentionTile&);
#ifdef KANGAROO_AMX
template void attend<TileDot>(const AttentionTile&);
#else
template void attend<WideDot>(const AttentionTile&);
#endif

}  // namespace kangaroo::KANGAROO_ISA
