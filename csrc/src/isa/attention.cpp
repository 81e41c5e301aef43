#include "isa/attention.h"

#include "isa/gemm.h"
#include "kangaroo/tree_attention.h"

namespace kangaroo::KANGAROO_ISA {
namespace {

constexpr int64_t kChunk = KANGAROO_KV_CHUNK;
constexpr uint64_t kLaneMask = (uint64_t{1} << kLanes) - 1;
constexpr int kMaxWidth = KANGAROO_MAX_HEAD_DIM;
constexpr int kRowsTogether = kLanes == 16 ? 4 : 2;  // with four vectors each: sums in registers
static_assert(kChunk == 64, "a chunk's visible slots are the bits of one word");

struct Work {
  alignas(64) float q[kMaxAttentionRows * kMaxWidth];  // scaled, laid out for the product
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

// Bit j: the row sees slot `chunk` + j.
KANGAROO_INLINE uint64_t visible_slots(const AttentionRow& row, int64_t chunk) {
  const int64_t tree_start = row.prefix_len - chunk;
  uint64_t bits = low_bits(tree_start);
  if (tree_start >= 0 && tree_start < kChunk) bits |= row.tree << tree_start;
  if (tree_start < 0 && tree_start > -kChunk) bits |= row.tree >> -tree_start;
  return bits;
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
template <class T>
void add_chunk(Work& work, const AttentionTile& tile, const T* v) {
  for (int r = 0; r < tile.num_rows;) r += add_rows<kRowsTogether>(work, tile, v, r);
}

int64_t num_slots_seen(const AttentionTile& tile) {
  int64_t most = 0;
  for (int r = 0; r < tile.num_rows; ++r) {
    const AttentionRow& row = tile.rows[r];
    const int64_t tree = row.tree ? 64 - __builtin_clzll(row.tree) : 0;
    if (row.prefix_len + tree > most) most = row.prefix_len + tree;
  }
  return most;
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

template <class Dot>
void start(Work& work, const AttentionTile& tile) {
  for (int r = 0; r < tile.num_rows; ++r) {
    const PackedRow row = {tile.rows[r].q, nullptr, 0.0f, tile.scale, tile.head_dim};
    pack<Dot>(row, r, tile.num_rows, reinterpret_cast<char*>(work.q));
    for (int64_t d = 0; d < kMaxWidth && d < tile.head_dim + kLanes; ++d) {
      work.acc[r * kMaxWidth + d] = 0.0f;
    }
    work.top[r] = -__builtin_inff();
    work.total[r] = 0.0f;
  }
}

}  // namespace

template <class Dot>
void attend(const AttentionTile& tile) {
  using T = typename Dot::Weight;
  Work work;
  start<Dot>(work, tile);
  const int64_t width = (tile.head_dim + kLanes - 1) / kLanes * kLanes;
  const int64_t num_slots = num_slots_seen(tile);
  for (int64_t chunk = 0; chunk < num_slots; chunk += kChunk) {
    uint64_t any = 0;
    for (int r = 0; r < tile.num_rows; ++r) {
      any |= work.visible[r] = visible_slots(tile.rows[r], chunk);
    }
    if (!any) continue;
    score<Dot>(work, tile, chunk, any);
    for (int r = 0; r < tile.num_rows; ++r) {
      if (work.visible[r]) soften(work, r, width);
    }
    add_chunk(work, tile, static_cast<const T*>(tile.v) + chunk * tile.slot_stride);
  }
  for (int r = 0; r < tile.num_rows; ++r) {
    const float* acc = work.acc + r * kMaxWidth;
    const Floats total = broadcast(work.total[r]);
    each_step(tile.head_dim, [&](int64_t at, int64_t lanes) {
      store_lanes(static_cast<T*>(tile.rows[r].out) + at, load_lanes(acc + at, lanes) / total,
                  lanes);
    });
  }
}

template void attend<FloatDot>(const AttentionTile&);
template void attend<WideDot>(const AttentionTile&);

}  // namespace kangaroo::KANGAROO_ISA
