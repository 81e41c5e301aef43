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
#include "norm.cuh"

namespace kangaroo {

constexpr int kGemmWarps = 8;
constexpr int kGemmThreads = kGemmWarps * kWarpSize;
constexpr int kMmaRows = 16;
constexpr int kMmaOuts = 8;

struct Product {
  Rows x;  // [num_rows, width]
  int num_rows;
  int width;
  Norm norm;
  const void* weight;  // [num_weights, width]
  int64_t weight_stride;
  int64_t num_weights;
  const int32_t* ids;  // [num_out]: rows of the weight; NULL: all, in order
  int64_t num_out;
  bool gated;  // num_weights is 2 num_out, and an output has two: its gate's row and its up's
  unsigned row_blocks;  // of the grid: blocks that share rows of the weight stand side by side
};

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
  // A third block, of a third of shared memory: room for the kernel behind to load its first
  // weights while two of this one still run.
  static constexpr int kBlocks = kAligned && kRowTiles == 1 ? (sizeof(T) == 2 ? 3 : 2) : 1;
  static constexpr int kStages = kWarpN == 16 ? 4 : kBlocks == 3 ? 2 : 3;
  static constexpr int kStageUnits = kGroups * kHalves * kWarpSize;  // of a warp
  static constexpr int kPartialStride = kTileN + kMmaOuts;           // warps' stores: no conflicts
  static constexpr int kRingBytes = 16 * kStages * kGemmWarps * kStageUnits;
  static constexpr int kPartialBytes = 4 * kWarpsK * kRows * kPartialStride;
  static constexpr int kLoadedBytes = kRingBytes + 4 * kGemmWarps * kRows;  // and rows' squares
  static constexpr int kSharedBytes = kLoadedBytes > kPartialBytes ? kLoadedBytes : kPartialBytes;
};

// The row of the weight that column `n` of a tile is the product with; -1: none, whatever `ids`
// hold. A gated tile has the gates of its outputs first, and then their ups.
template <class Tile>
__device__ __forceinline__ int weight_row(const Product& p, int64_t tile, int n) {
  constexpr int kHalf = Tile::kTileN / 2;
  const int64_t out = p.gated ? tile * kHalf + n % kHalf : tile * Tile::kTileN + n;
  if (out >= p.num_out) return -1;
  const int64_t row = p.ids ? p.ids[out] : p.gated && n >= kHalf ? p.num_out + out : out;
  return row >= 0 && row < p.num_weights ? static_cast<int>(row) : -1;
}

// The widest tiles of which the multiprocessors of a large GPU still have one each: the fewer
// blocks there are, the less often x is read.
inline int tile_outs(int64_t num_weights) {
  constexpr int64_t kEnough = 128;
  return num_weights >= 64 * kEnough ? 64 : num_weights >= 32 * kEnough ? 32 : 16;
}

// A lane's rows of the weight, and its slots of the ring.
template <class Tile>
struct Stream {
  using T = typename Tile::T;
  const Product& p;
  int rows[Tile::kGroups];  // their numbers take half of the registers of their addresses
  uint4* slots;
  uint64_t policy;

  __device__ __forceinline__ Stream(const Product& product, int64_t tile, int warp, int lane)
      : p(product),
        slots(shared_memory<uint4>() + warp * Tile::kStageUnits + lane),
        policy(cache_policy(p.row_blocks == 1)) {
#pragma unroll
    for (int group = 0; group < Tile::kGroups; ++group) {
      const int n = warp / Tile::kWarpsK * Tile::kWarpN + group * kMmaOuts + lane / 4;
      rows[group] = weight_row<Tile>(p, tile, n);
    }
  }

  __device__ __forceinline__ uint4* slot(int stage, int group, int half) const {
    return slots + (stage * kGemmWarps * Tile::kGroups + group) * Tile::kHalves * kWarpSize +
           half * kWarpSize;
  }

  // Behind the last chunk nothing is under way: the ring's memory has another use then.
  __device__ __forceinline__ void load(int chunk, int stage, int lane) const {
    if (chunk * Tile::kChunk < p.width) {
#pragma unroll
      for (int half = 0; half < Tile::kHalves; ++half) {
        const int column = chunk * Tile::kChunk + (4 * half + lane % 4) * kUnit<T>;
#pragma unroll
        for (int group = 0; group < Tile::kGroups; ++group) {
          load_unit(rows[group], column, slot(stage, group, half));
        }
      }
    }
    commit_copies();
  }

  __device__ __forceinline__ void load_unit(int row, int column, uint4* to) const {
    const int left = row < 0 ? 0 : p.width - column;
    const T* const from = static_cast<const T*>(p.weight) +
                          (left > 0 ? static_cast<unsigned>(row) * p.weight_stride + column : 0);
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
  const Product& p;
  const float* inverses;  // of the rows' RMS, where there is a norm
  const T* rows[Tile::kRowTiles][2];
  int live;  // rows, from the first on
  float acc[Tile::kRowTiles][Tile::kGroups][4] = {};
  uint4 x[Tile::kRowTiles][2][Tile::kHalves];
  uint4 factors[Tile::kHalves];

  __device__ __forceinline__ Sums(const Product& product, int first_row, const float* inverse,
                                  int lane)
      : p(product), inverses(inverse + lane / 4), live(product.num_rows - first_row) {
#pragma unroll
    for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int row = kMmaRows * tile + 8 * part + lane / 4;
        rows[tile][part] = p.x.at<const T>(first_row + (row < live ? row : 0));
      }
    }
  }

  __device__ __forceinline__ void load(int chunk, int lane) {
#pragma unroll
    for (int half = 0; half < Tile::kHalves; ++half) {
      const int column = chunk * Tile::kChunk + (4 * half + lane % 4) * kUnit<T>;
      const int left = p.width - column;
      if (p.norm.weight) {
        const T* const from = static_cast<const T*>(p.norm.weight) + column;
        factors[half] = load_unit(from, left, Tile::kAligned);
      }
#pragma unroll
      for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
        if (kMmaRows * tile >= live) break;
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const int row = kMmaRows * tile + 8 * part + lane / 4;
          x[tile][part][half] =
              load_unit(rows[tile][part] + column, row < live ? left : 0, Tile::kAligned);
        }
      }
    }
  }

  __device__ __forceinline__ void normalize() {
#pragma unroll
    for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int row = kMmaRows * tile + 8 * part;
        if (row >= live) return;  // of all lanes
#pragma unroll
        for (int half = 0; half < Tile::kHalves; ++half) {
          kangaroo::normalize<T>(x[tile][part][half], inverses[row], factors[half]);
        }
      }
    }
  }

  __device__ __forceinline__ void add(const Stream<Tile>& weights, int stage) {
    if (p.norm.weight) normalize();
#pragma unroll
    for (int half = 0; half < Tile::kHalves; ++half) {
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        const uint4 w = *weights.slot(stage, group, half);
#pragma unroll
        for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
          if (kMmaRows * tile >= live) break;
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
  const Product& p;
  const float* inverses;
  const float* rows[kMmaRows];
  int live;
  int column;
  float acc[kMmaRows][Tile::kGroups] = {};

  __device__ __forceinline__ PlainSums(const Product& product, int first_row, const float* inverse,
                                       int)
      : p(product), inverses(inverse), live(product.num_rows - first_row) {
#pragma unroll
    for (int row = 0; row < kMmaRows; ++row) {
      rows[row] = p.x.at<const float>(first_row + (row < live ? row : 0));
    }
  }

  __device__ __forceinline__ void load(int chunk, int lane) {
    column = chunk * Tile::kChunk + lane % 4 * kUnit<float>;
  }

  __device__ __forceinline__ void add(const Stream<Tile>& weights, int stage) {
#pragma unroll
    for (int half = 0; half < Tile::kHalves; ++half) {
      const int at = column + 4 * half * kUnit<float>;
      float w[Tile::kGroups][kUnit<float>];
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        widen<float>(*weights.slot(stage, group, half), w[group]);
      }
      uint4 factors = {};
      if (p.norm.weight) {
        const float* const from = static_cast<const float*>(p.norm.weight) + at;
        factors = load_unit(from, p.width - at, Tile::kAligned);
      }
#pragma unroll
      for (int row = 0; row < kMmaRows; ++row) {
        if (row >= live) break;
        uint4 unit = load_unit(rows[row] + at, p.width - at, Tile::kAligned);
        if (p.norm.weight) normalize<float>(unit, inverses[row], factors);
        float x[kUnit<float>];
        widen<float>(unit, x);
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

// Rows first_row to first_row + kRows of x times the rows of the weight of one tile: the warps'
// parts in shared memory, to be added by `sum_of`. `begin` is called once the kernel in front has
// ended: what it loads is there when the sums are.
template <class Tile, class Begin>
__device__ __forceinline__ const float* multiply(const Product& p, int first_row, int64_t tile,
                                                 const Begin& begin) {
  using T = typename Tile::T;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp_k = warp % Tile::kWarpsK;
  const int chunks = ceil_div(p.width, Tile::kChunk);
  const Stream<Tile> weights(p, tile, warp, lane);
#pragma unroll
  for (int stage = 0; stage < Tile::kStages; ++stage) {
    weights.load(warp_k + stage * Tile::kWarpsK, stage, lane);
  }
  wait_for_previous_kernel();  // x is another kernel's result, the weights are not
  begin();
  float* const inverses = shared_memory<float>() + Tile::kRingBytes / 4;
  if (p.norm.weight) {
    const int live = p.num_rows - first_row < Tile::kRows ? p.num_rows - first_row : Tile::kRows;
    inverse_rms_of_rows<T, kGemmWarps, Tile::kRows>(p.x, first_row, live, p.width, p.norm.eps,
                                                    Tile::kAligned, inverses);
  }
  std::conditional_t<kIsFloat<T>, PlainSums<Tile>, Sums<Tile>> sums(p, first_row, inverses, lane);
  int stage = 0;
  for (int chunk = warp_k; chunk < chunks; chunk += Tile::kWarpsK) {
    sums.load(chunk, lane);
    wait_for_copies<Tile::kStages - 1>();
    sums.add(weights, stage);
    // Behind the reads of the same slots by the same thread, which therefore come first.
    weights.load(chunk + Tile::kStages * Tile::kWarpsK, stage, lane);
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
  }
  __syncthreads();  // the ring is empty, and its memory free
  float* const partials = shared_memory<float>();
  sums.store(
      partials + warp_k * Tile::kRows * Tile::kPartialStride + warp / Tile::kWarpsK * Tile::kWarpN,
      lane);
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
  const bool batch = p.num_rows <= static_cast<int64_t>(p.x.nodes) || p.x.batch_stride % unit == 0;
  return nodes && batch && aligned_to_16(p.x.data) && aligned_to_16(p.norm.weight) &&
         aligned_to_16(p.weight) && p.weight_stride % unit == 0 && p.width % unit == 0;
}

// Calls `body` with the tile for this product. Every one that a shape of the weight can meet adds
// in the same order.
template <class T, class Body>
cudaError_t with_tile(const Product& p, const Body& body) {
  const bool is_aligned = aligned(p, sizeof(T));
  if constexpr (kIsFloat<T>) {
    return is_aligned ? body(Tile<T, 16, 1, true>{}) : body(Tile<T, 16, 1, false>{});
  } else {
    const int outs = tile_outs(p.num_weights);
    if (!is_aligned) {
      return outs == 64 ? body(Tile<T, 64, 1, false>{}) : body(Tile<T, 16, 1, false>{});
    }
    if (p.num_rows <= kMmaRows) {
      return outs == 64   ? body(Tile<T, 64, 1, true>{})
             : outs == 32 ? body(Tile<T, 32, 1, true>{})
                          : body(Tile<T, 16, 1, true>{});
    }
    return outs == 64   ? body(Tile<T, 64, 4, true>{})
           : outs == 32 ? body(Tile<T, 32, 4, true>{})
                        : body(Tile<T, 16, 4, true>{});
  }
}

}  // namespace kangaroo
