// Skinny products, shared by linear and top1_confidence: few rows of x times all rows of a weight.
//
// The cost is the weight's bytes. A block owns kTileN rows of the weight, and its warps every
// kWarpsK-th chunk of 128 bytes of them. A lane streams the 16 bytes that its own part of the
// tensor cores' instruction needs through its own slots of a ring: nobody waits for anybody. Of the
// columns within 16 bytes the instruction then sees an order of its own, the same in x and weight.
//
// A sum's order depends on the weight's shape alone: a warp's chunks one after another, then the
// warps; never on the number of rows, nor on addresses.
#pragma once

#include <type_traits>

#include "device.cuh"

namespace kangaroo {

constexpr int kGemmWarps = 8;
constexpr int kGemmThreads = kGemmWarps * kWarpSize;
constexpr int kMmaRows = 16;
constexpr int kMmaOuts = 8;

struct Product {
  Rows x;  // [num_rows, width]
  int64_t num_rows;
  const void* weight;  // [num_weights, width]
  int64_t weight_stride;
  int64_t num_weights;
  int64_t width;
  const int32_t* ids;  // [num_out]: rows of the weight; NULL: all, in order
  int64_t num_out;
  int64_t row_blocks;  // of the grid: blocks that share rows of the weight stand side by side
};

// The row of the weight that output `out` is the product with; -1: none, whatever `ids` hold.
__device__ __forceinline__ int64_t weight_row(const Product& p, int64_t out) {
  if (out >= p.num_out) return -1;
  const int64_t row = p.ids ? p.ids[out] : out;
  return row >= 0 && row < p.num_weights ? row : -1;
}

template <class Type, int kOuts, int kTilesOfRows, bool kIsAligned>
struct Tile {
  using T = Type;
  static constexpr bool kAligned = kIsAligned;
  static constexpr int kTileN = kOuts;
  static constexpr int kRowTiles = kTilesOfRows;
  static constexpr int kRows = kMmaRows * kRowTiles;
  static constexpr int kWarpN = kTileN < 32 ? kTileN : 32;
  static constexpr int kWarpsK = kGemmWarps / (kTileN / kWarpN);
  static constexpr int kGroups = kWarpN / kMmaOuts;
  static constexpr int kHalves = 2;  // units of a chunk that a lane needs of every row
  static constexpr int kChunk = 4 * kHalves * kUnit<T>;
  static constexpr int kStages = kWarpN == 16 ? 4 : 3;
  static constexpr int kStageUnits = kGroups * kHalves * kWarpSize;  // of a warp
  static constexpr int kPartialStride = kTileN + kMmaOuts;           // warps' stores: no conflicts
  static constexpr int kRingBytes = 16 * kStages * kGemmWarps * kStageUnits;
  static constexpr int kPartialBytes = 4 * kWarpsK * kRows * kPartialStride;
  static constexpr int kBlocks = kAligned && kRowTiles == 1 ? 2 : 1;  // of a multiprocessor
  static constexpr int kSharedBytes = kRingBytes > kPartialBytes ? kRingBytes : kPartialBytes;
};

// The widest tiles of which the multiprocessors of a large GPU still have one each: the fewer
// blocks there are, the less often x is read.
inline int tile_outs(int64_t num_out) {
  constexpr int64_t kEnough = 128;
  return num_out >= 64 * kEnough ? 64 : num_out >= 32 * kEnough ? 32 : 16;
}

// A lane's rows of the weight, and its slots of the ring.
template <class Tile>
struct Stream {
  using T = typename Tile::T;
  const T* rows[Tile::kGroups];
  bool known[Tile::kGroups];
  uint4* slots;
  uint64_t policy;

  __device__ __forceinline__ Stream(const Product& p, int64_t first_out, int warp, int lane)
      : slots(shared_memory<uint4>() + warp * Tile::kStageUnits + lane),
        policy(cache_policy(p.row_blocks == 1)) {
#pragma unroll
    for (int group = 0; group < Tile::kGroups; ++group) {
      const int64_t row = weight_row(p, first_out + group * kMmaOuts + lane / 4);
      known[group] = row >= 0;
      rows[group] = static_cast<const T*>(p.weight) + (known[group] ? row : 0) * p.weight_stride;
    }
  }

  __device__ __forceinline__ uint4* slot(int stage, int group, int half) const {
    return slots + (stage * kGemmWarps * Tile::kGroups + group) * Tile::kHalves * kWarpSize +
           half * kWarpSize;
  }

  // Behind the last chunk nothing is under way: the ring's memory has another use then.
  __device__ __forceinline__ void load(int64_t chunk, int stage, int lane, int64_t width) const {
    if (chunk * Tile::kChunk < width) {
#pragma unroll
      for (int half = 0; half < Tile::kHalves; ++half) {
        const int64_t column = chunk * Tile::kChunk + (4 * half + lane % 4) * kUnit<T>;
#pragma unroll
        for (int group = 0; group < Tile::kGroups; ++group) {
          load_unit(group, known[group] ? width - column : 0, column, slot(stage, group, half));
        }
      }
    }
    commit_copies();
  }

  __device__ __forceinline__ void load_unit(int group, int64_t left, int64_t column,
                                            uint4* to) const {
    const T* const from = rows[group] + (left > 0 ? column : 0);
    if (Tile::kAligned) {
      copy_async(to, from, left > 0 ? 16 : 0, policy);
    } else {
      *to = kangaroo::load_unit(from, left, false);
    }
  }
};

// Sums of a warp on tensor cores: 16-bit numbers.
template <class Tile>
struct Sums {
  using T = typename Tile::T;
  const T* rows[Tile::kRowTiles][2];
  bool live[Tile::kRowTiles][2];
  int row_tiles;
  float acc[Tile::kRowTiles][Tile::kGroups][4] = {};
  uint4 x[Tile::kRowTiles][2][Tile::kHalves];

  __device__ __forceinline__ Sums(const Product& p, int64_t first_row, int lane)
      : row_tiles(static_cast<int>(ceil_div(p.num_rows - first_row, kMmaRows))) {
#pragma unroll
    for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int64_t row = first_row + kMmaRows * tile + 8 * part + lane / 4;
        live[tile][part] = row < p.num_rows;
        rows[tile][part] = p.x.at<const T>(live[tile][part] ? row : first_row);
      }
    }
  }

  __device__ __forceinline__ void load(int64_t chunk, int lane, int64_t width) {
#pragma unroll
    for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
      if (tile >= row_tiles) break;
#pragma unroll
      for (int half = 0; half < Tile::kHalves; ++half) {
        const int64_t column = chunk * Tile::kChunk + (4 * half + lane % 4) * kUnit<T>;
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const int64_t left = live[tile][part] ? width - column : 0;
          x[tile][part][half] = load_unit(rows[tile][part] + column, left, Tile::kAligned);
        }
      }
    }
  }

  __device__ __forceinline__ void add(const Stream<Tile>& weights, int stage) {
#pragma unroll
    for (int half = 0; half < Tile::kHalves; ++half) {
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        const uint4 w = *weights.slot(stage, group, half);
#pragma unroll
        for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
          if (tile >= row_tiles) break;
          const uint4 &a = x[tile][0][half], &b = x[tile][1][half];
          multiply_add<T>(acc[tile][group], {a.x, b.x, a.y, b.y}, {w.x, w.y});
          multiply_add<T>(acc[tile][group], {a.z, b.z, a.w, b.w}, {w.z, w.w});
        }
      }
    }
  }

  // To partials [kRows, kPartialStride].
  __device__ __forceinline__ void store(float* partials, int lane) const {
#pragma unroll
    for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        float* const to = partials + (kMmaRows * tile + lane / 4) * Tile::kPartialStride +
                          group * kMmaOuts + lane % 4 * 2;
        const float (&sum)[4] = acc[tile][group];
        *reinterpret_cast<float2*>(to) = make_float2(sum[0], sum[1]);
        *reinterpret_cast<float2*>(to + 8 * Tile::kPartialStride) = make_float2(sum[2], sum[3]);
      }
    }
  }
};

// Sums of a warp in float32, without tensor cores: there is no rounding to TF32.
template <class Tile>
struct PlainSums {
  const float* rows[kMmaRows];
  int live;
  int64_t column;
  int64_t width;
  float acc[kMmaRows][Tile::kGroups] = {};

  __device__ __forceinline__ PlainSums(const Product& p, int64_t first_row, int)
      : live(p.num_rows - first_row < kMmaRows ? static_cast<int>(p.num_rows - first_row)
                                               : kMmaRows),
        width(p.width) {
#pragma unroll
    for (int row = 0; row < kMmaRows; ++row) {
      rows[row] = p.x.at<const float>(row < live ? first_row + row : first_row);
    }
  }

  __device__ __forceinline__ void load(int64_t chunk, int lane, int64_t) {
    column = chunk * Tile::kChunk + lane % 4 * kUnit<float>;
  }

  __device__ __forceinline__ void add(const Stream<Tile>& weights, int stage) {
#pragma unroll
    for (int half = 0; half < Tile::kHalves; ++half) {
      const int64_t at = column + 4 * half * kUnit<float>;
      float w[Tile::kGroups][kUnit<float>];
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        widen<float>(*weights.slot(stage, group, half), w[group]);
      }
#pragma unroll
      for (int row = 0; row < kMmaRows; ++row) {
        if (row >= live) break;
        float x[kUnit<float>];
        widen<float>(load_unit(rows[row] + at, width - at, Tile::kAligned), x);
#pragma unroll
        for (int group = 0; group < Tile::kGroups; ++group) {
#pragma unroll
          for (int i = 0; i < kUnit<float>; ++i) {
            acc[row][group] = fmaf(x[i], w[group][i], acc[row][group]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void store(float* partials, int lane) const {
#pragma unroll
    for (int row = 0; row < kMmaRows; ++row) {
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        float sum = acc[row][group];  // four lanes have a part of it
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        if (lane % 4 == 0) {
          partials[row * Tile::kPartialStride + group * kMmaOuts + lane / 4] = sum;
        }
      }
    }
  }
};

template <class T>
constexpr bool kIsFloat = sizeof(T) == 4;

// Rows first_row to first_row + kRows of x times rows first_out to first_out + kTileN of the
// weight: the warps' parts in shared memory, to be added by `sum_of`.
template <class Tile>
__device__ __forceinline__ const float* multiply(const Product& p, int64_t first_row,
                                                 int64_t first_out) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp_k = warp % Tile::kWarpsK;
  const int warp_n = warp / Tile::kWarpsK * Tile::kWarpN;
  const int64_t chunks = ceil_div(p.width, Tile::kChunk);
  const Stream<Tile> weights(p, first_out + warp_n, warp, lane);
#pragma unroll
  for (int stage = 0; stage < Tile::kStages; ++stage) {
    weights.load(warp_k + stage * Tile::kWarpsK, stage, lane, p.width);
  }
  wait_for_previous_kernel();  // x is another kernel's result, the weights are not
  std::conditional_t<kIsFloat<typename Tile::T>, PlainSums<Tile>, Sums<Tile>> sums(p, first_row,
                                                                                   lane);
  int stage = 0;
  for (int64_t chunk = warp_k; chunk < chunks; chunk += Tile::kWarpsK) {
    sums.load(chunk, lane, p.width);
    wait_for_copies<Tile::kStages - 1>();
    sums.add(weights, stage);
    // Behind the reads of the same slots by the same thread, which therefore come first.
    weights.load(chunk + Tile::kStages * Tile::kWarpsK, stage, lane, p.width);
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
  }
  __syncthreads();  // the ring is empty, and its memory free
  float* const partials = shared_memory<float>();
  sums.store(partials + warp_k * Tile::kRows * Tile::kPartialStride + warp_n, lane);
  __syncthreads();
  return partials;
}

template <class Tile>
__device__ __forceinline__ float sum_of(const float* partials, int row, int out) {
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < Tile::kWarpsK; ++warp) {
    sum += partials[(warp * Tile::kRows + row) * Tile::kPartialStride + out];
  }
  return sum;
}

// Whether the product may read 16 bytes at once everywhere.
inline bool aligned(const Product& p, int64_t item_bytes) {
  const int64_t unit = 16 / item_bytes;
  const bool nodes = p.x.nodes <= 1 || p.x.node_stride % unit == 0;
  const bool batch = p.num_rows <= p.x.nodes || p.x.batch_stride % unit == 0;
  return nodes && batch && aligned_to_16(p.x.data) && aligned_to_16(p.weight) &&
         p.weight_stride % unit == 0 && p.width % unit == 0;
}

}  // namespace kangaroo
