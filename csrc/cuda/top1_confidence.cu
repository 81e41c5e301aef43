// top1_confidence: final norm, head, and of the logits the best token and how sure it is. Three
// launches; a block of the second keeps of its logits the best one and their part of the softmax's
// sum, a block of the third puts one row together and appends to its chain.
#include "check.h"
#include "gemm.cuh"
#include "kangaroo/cuda.h"
#include "norm.cuh"
#include "rank.cuh"

namespace kangaroo {
namespace {

using Params = kangaroo_top1_confidence_params;

constexpr int kMergeThreads = 256;
constexpr int kMergeWarps = kMergeThreads / kWarpSize;
constexpr float kLowest = -3.402823466e+38f;  // finite, in float32

// Outs of a block, by the size of an element.
constexpr int tokens_of_block(int64_t item_bytes) { return item_bytes == 4 ? 16 : 64; }

// What the second launch leaves to the third, [num_rows, num_tiles].
struct Found {
  uint64_t* best;  // the largest logit and where it stands among those that may be drafted
  float* mass;     // sum of exp(logit - largest)
  int64_t num_tiles;
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, Tile::kBlocks)
    _score_kernel(const __grid_constant__ Product p, const __grid_constant__ Found found) {
  let_next_kernel_start();
  const int64_t first_row = blockIdx.x % p.row_blocks * Tile::kRows;
  const int64_t tile = blockIdx.x / p.row_blocks;
  const int64_t first_out = tile * Tile::kTileN;
  const float* const partials = multiply<Tile>(p, first_row, first_out);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int row = static_cast<int>(threadIdx.x) / kWarpSize; row < Tile::kRows; row += kGemmWarps) {
    if (first_row + row >= p.num_rows) return;
    constexpr int kOuts = (Tile::kTileN + kWarpSize - 1) / kWarpSize;  // of a lane
    uint64_t ranks[kOuts];
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < kOuts; ++i) {
      const int out = i * kWarpSize + lane;
      const int64_t place = first_out + out;
      ranks[i] = 0;
      if (out >= Tile::kTileN || weight_row(p, place) < 0) continue;
      // What is no number, or -inf, ranks below all others.
      const float logit = sum_of<Tile>(partials, row, out);
      ranks[i] = ranked(logit > kLowest ? logit : kLowest, static_cast<unsigned>(place));
      best = larger(best, ranks[i]);
    }
    best = warp_largest(best);
    float mass = 0.0f;
#pragma unroll
    for (int i = 0; i < kOuts; ++i) {
      if (ranks[i]) mass += expf(value_of(ranks[i]) - value_of(best));
    }
    mass = warp_sum(mass);
    if (lane != 0) continue;
    const int64_t at = (first_row + row) * found.num_tiles + tile;
    found.best[at] = best;
    found.mass[at] = mass;
  }
}

struct Merge {
  Found found;
  const int32_t* ids;
  int64_t* tokens;
  float* confidence;
  int64_t nodes;
  bool appends;
  kangaroo_draft_chain chain;
};

// The token becomes the chain's next node, unless drafting has stopped.
__device__ void append(const kangaroo_draft_chain& c, int64_t b, int64_t token, float confidence) {
  const int64_t node = c.num_nodes[b];
  if (c.stopped[b] != 0) return;
  if (node >= c.capacity) {
    c.stopped[b] = 1;
  } else if (node > 0) {
    const int64_t place = b * c.capacity + node;
    c.tokens[place] = token;
    c.positions[place] = c.positions[place - 1] + 1;
    c.num_nodes[b] = static_cast<int32_t>(node + 1);
    c.stopped[b] = confidence >= c.threshold[b] && node + 1 < c.capacity ? 0 : 1;
  }
}

__global__ void __launch_bounds__(kMergeThreads) _merge_kernel(const __grid_constant__ Merge m) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  auto* const best_of_warps = shared_memory<uint64_t>();
  auto* const mass_of_warps = reinterpret_cast<float*>(best_of_warps + kMergeWarps);
  const auto thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  const uint64_t* const ranks = m.found.best + row * m.found.num_tiles;
  const float* const masses = m.found.mass + row * m.found.num_tiles;
  uint64_t best = 0;
  for (int64_t tile = thread; tile < m.found.num_tiles; tile += kMergeThreads) {
    best = larger(best, ranks[tile]);
  }
  best = warp_largest(best);
  if (thread % kWarpSize == 0) best_of_warps[thread / kWarpSize] = best;
  __syncthreads();
  for (int warp = 0; warp < kMergeWarps; ++warp) best = larger(best, best_of_warps[warp]);
  float mass = 0.0f;
  for (int64_t tile = thread; tile < m.found.num_tiles; tile += kMergeThreads) {
    if (ranks[tile]) mass += masses[tile] * expf(value_of(ranks[tile]) - value_of(best));
  }
  mass = warp_sum(mass);
  if (thread % kWarpSize == 0) mass_of_warps[thread / kWarpSize] = mass;
  __syncthreads();
  if (thread != 0) return;
  float total = 0.0f;
  for (int warp = 0; warp < kMergeWarps; ++warp) total += mass_of_warps[warp];
  // Where no id is one of the vocabulary: the first token, and not sure at all.
  const int64_t place = best ? id_of(best) : 0;
  const int64_t token = best && m.ids ? m.ids[place] : place;
  const float confidence = best ? 1.0f / total : 0.0f;
  m.tokens[row] = token;
  m.confidence[row] = confidence;
  if (m.appends && row % m.nodes == m.nodes - 1) append(m.chain, row / m.nodes, token, confidence);
}

int64_t num_out(const Params& p) { return p.head.token_ids ? p.head.num_ids : p.head.weight.rows; }

// Normalized rows, then what was found, each in whole units of 16 bytes.
struct Layout {
  int64_t tiles, best, mass, bytes;

  explicit Layout(const Params& p) {
    tiles = ceil_div(num_out(p), tokens_of_block(size_of(p.h.dtype)));
    const int64_t found = p.h.batch * p.h.nodes * tiles;
    best = norm_bytes(p.h);
    mass = best + ceil_div(found, 2) * 16;
    bytes = mass + ceil_div(found, 4) * 16;
  }
};

template <class Tile>
cudaError_t run_tiles(Product p, const Found& found, cudaStream_t stream) {
  p.row_blocks = ceil_div(p.num_rows, Tile::kRows);
  const Blocks blocks = {p.row_blocks * found.num_tiles, kGemmThreads, Tile::kSharedBytes};
  return launch(_score_kernel<Tile>, blocks, stream, p, found);
}

// Every variant adds in the same order.
template <class T>
cudaError_t run_scores(const Product& p, const Found& found, cudaStream_t stream) {
  constexpr int kOuts = tokens_of_block(sizeof(T));
  if (!aligned(p, sizeof(T))) return run_tiles<Tile<T, kOuts, 1, false>>(p, found, stream);
  if constexpr (!kIsFloat<T>) {
    if (p.num_rows > kMmaRows) return run_tiles<Tile<T, kOuts, 4, true>>(p, found, stream);
  }
  return run_tiles<Tile<T, kOuts, 1, true>>(p, found, stream);
}

template <class T>
cudaError_t run(const Params& p, void* workspace, cudaStream_t stream) {
  const Layout layout(p);
  auto* const bytes = static_cast<char*>(workspace);
  const int64_t num_rows = p.h.batch * p.h.nodes;
  const Found found = {reinterpret_cast<uint64_t*>(bytes + layout.best),
                       reinterpret_cast<float*>(bytes + layout.mass), layout.tiles};
  Rows rows = {};
  cudaError_t error = normalize<T>(p.h, p.norm.data, p.eps, workspace, stream, &rows);
  if (error != cudaSuccess || num_rows == 0) return error;
  const kangaroo_matrix& weight = p.head.weight;
  const Product product = {rows,
                           num_rows,
                           weight.data,
                           weight.row_stride,
                           weight.rows,
                           p.h.width,
                           p.head.token_ids,
                           num_out(p),
                           1};
  error = run_scores<T>(product, found, stream);
  if (error != cudaSuccess) return error;
  Merge merge = {found,     p.head.token_ids,   p.tokens, p.confidence,
                 p.h.nodes, p.chain != nullptr, {}};
  if (p.chain) merge.chain = *p.chain;
  const int shared = kMergeWarps * static_cast<int>(sizeof(uint64_t) + sizeof(float));
  return launch(_merge_kernel, {num_rows, kMergeThreads, shared}, stream, merge);
}

void check_chain(Check& check, const kangaroo_draft_chain& c, const kangaroo_states& h) {
  check.within("chain.batch", c.batch, h.batch, h.batch);
  check.within("chain.capacity", c.capacity, 0, INT32_MAX);
  check.array("chain.tokens", c.tokens, c.batch, c.capacity, sizeof(int64_t));
  check.array("chain.positions", c.positions, c.batch, c.capacity, sizeof(int32_t));
  check.array("chain.num_nodes", c.num_nodes, c.batch, 1, sizeof(int32_t));
  check.array("chain.stopped", c.stopped, c.batch, 1, sizeof(int32_t));
  check.array("chain.threshold", c.threshold, c.batch, 1, sizeof(float));
  if (c.batch > 0) check.at_least("h.nodes", h.nodes, 1);
}

kangaroo_status check_params(const Params& p) {
  Check check("top1_confidence");
  check_rows(check, "h", p.h);
  check.within("head.weight.rows", p.head.weight.rows, 1, INT32_MAX);
  check.matrix("head.weight", p.head.weight, p.head.weight.rows, p.h.width, p.h.dtype);
  check.vector("norm", p.norm, p.h.width, p.h.dtype);
  if (p.head.token_ids) {
    check.within("head.num_ids", p.head.num_ids, 1, INT32_MAX);
    check.array("head.token_ids", p.head.token_ids, p.head.num_ids, 1, sizeof(int32_t));
  }
  check.array("tokens", p.tokens, p.h.batch, p.h.nodes, sizeof(int64_t));
  check.array("confidence", p.confidence, p.h.batch, p.h.nodes, sizeof(float));
  check.eps(p.eps);
  if (p.chain) check_chain(check, *p.chain, p.h);
  return check.status();
}

}  // namespace
}  // namespace kangaroo

int64_t kangaroo_top1_confidence_cuda_workspace(const kangaroo_top1_confidence_params* params) {
  using namespace kangaroo;
  const kangaroo_status status = entry("top1_confidence", params, check_params);
  return status == KANGAROO_OK ? Layout(*params).bytes : -1;
}

kangaroo_status kangaroo_top1_confidence_cuda(const kangaroo_top1_confidence_params* params,
                                              void* workspace, void* stream) {
  using namespace kangaroo;
  return entry("top1_confidence", params, [=](const Params& p) {
    kangaroo_status status = check_params(p);
    if (status == KANGAROO_OK) {
      status = check_workspace("top1_confidence", workspace, Layout(p).bytes);
    }
    if (status != KANGAROO_OK) return status;
    return launched("top1_confidence", by_dtype(p.h.dtype, [&](auto type) {
                      return run<decltype(type)>(p, workspace, static_cast<cudaStream_t>(stream));
                    }));
  });
}
