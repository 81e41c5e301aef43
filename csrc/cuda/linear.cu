// linear: residual + (rms_norm(x) W^T + bias), in one launch.
#include "checks.h"
#include "kangaroo/cuda.h"
#include "linear.cuh"

namespace kangaroo {
namespace {

using Params = kangaroo_linear_params;

// What a thread adds to its sums: those of one column of a tile, every kStep rows.
template <class Tile>
struct Added {
  using T = typename Tile::T;
  static constexpr int kStep = kGemmThreads / Tile::kTileN;
  static constexpr int kItems = Tile::kRows / kStep;
  int64_t out;
  int first_row;  // of the thread's
  T bias = {};
  T residual[kItems] = {};

  __device__ __forceinline__ Added(int64_t tile, int tiles_row)
      : out(tile * Tile::kTileN + static_cast<int>(threadIdx.x) % Tile::kTileN),
        first_row(tiles_row + static_cast<int>(threadIdx.x) / Tile::kTileN) {}

  __device__ __forceinline__ bool has(const Product& p, int item) const {
    return out < p.num_out && first_row + item * kStep < p.num_rows;
  }

  __device__ __forceinline__ void load(const Product& p, const Behind& behind) {
    if (behind.bias && out < p.num_out) bias = static_cast<const T*>(behind.bias)[out];
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (!behind.residual.data || !has(p, i)) break;
      residual[i] = behind.residual.at<const T>(first_row + i * kStep)[out];
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, Tile::kBlocks)
    _linear_kernel(const __grid_constant__ Product p, const __grid_constant__ Behind behind) {
  using T = typename Tile::T;
  let_next_kernel_start();
  const int first_row = static_cast<int>(blockIdx.x % p.row_blocks) * Tile::kRows;
  const int64_t tile = blockIdx.x / p.row_blocks;
  Added<Tile> added(tile, first_row);
  const float* const partials = multiply<Tile>(p, first_row, tile, [&] { added.load(p, behind); });
#pragma unroll
  for (int i = 0; i < added.kItems; ++i) {
    if (!added.has(p, i)) return;
    const int row = added.first_row + i * added.kStep;
    float sum = sum_of<Tile>(partials, row - first_row, threadIdx.x % Tile::kTileN);
    if (behind.bias) sum += wide(added.bias);
    if (behind.residual.data) sum += wide(added.residual[i]);
    if (behind.unrounded) {
      behind.out.at<float>(row)[added.out] = sum;
    } else {
      behind.out.at<T>(row)[added.out] = narrow<T>(sum);
    }
  }
}

template <class T>
cudaError_t run(const Params& p, cudaStream_t stream) {
  const auto num_rows = static_cast<int>(p.x.batch * p.x.nodes);
  if (num_rows == 0) return cudaSuccess;
  Product product = {};
  product.x = rows_of(p.x);
  product.num_rows = num_rows;
  product.width = static_cast<int>(p.x.width);
  product.norm = {p.norm.data, p.eps};
  product.weight = p.weight.data;
  product.weight_stride = p.weight.row_stride;
  product.num_weights = product.num_out = p.weight.rows;
  return run_product<T>(
      product, {p.bias.data, rows_of(p.residual), rows_of(p.out), p.out.dtype == KANGAROO_FLOAT32},
      stream);
}

kangaroo_status check_params(const Params& p) {
  Check check("linear");
  check_rows(check, "x", p.x);
  check.matrix("weight", p.weight, p.weight.rows, p.x.width, p.x.dtype);
  check.within("weight.rows", p.weight.rows, 0, INT32_MAX);
  check.optional("bias", p.bias, p.weight.rows, p.x.dtype);
  check.optional("norm", p.norm, p.x.width, p.x.dtype);
  if (p.residual.data) check.states("residual", p.residual, p.x, p.weight.rows, p.x.dtype);
  const bool unrounded = p.out.dtype == KANGAROO_FLOAT32;
  check.states("out", p.out, p.x, p.weight.rows, unrounded ? KANGAROO_FLOAT32 : p.x.dtype);
  check.eps(p.eps);
  return check.status();
}

}  // namespace

template <class T>
cudaError_t run_product(const Product& p, const Behind& behind, cudaStream_t stream) {
  return with_tile<T>(p, [&](auto tile) {
    using Tile = decltype(tile);
    Product product = p;
    product.row_blocks = static_cast<unsigned>(ceil_div(p.num_rows, Tile::kRows));
    const int64_t tiles = ceil_div(p.num_out, Tile::kTileN);
    const Blocks blocks = {product.row_blocks * tiles, kGemmThreads, Tile::kSharedBytes};
    return launch(_linear_kernel<Tile>, blocks, stream, product, behind);
  });
}
template cudaError_t run_product<float>(const Product&, const Behind&, cudaStream_t);
template cudaError_t run_product<__nv_bfloat16>(const Product&, const Behind&, cudaStream_t);
template cudaError_t run_product<__half>(const Product&, const Behind&, cudaStream_t);

}  // namespace kangaroo

kangaroo_status kangaroo_linear_cuda(const kangaroo_linear_params* params, void* stream) {
  using namespace kangaroo;
  return entry("linear", params, [=](const Params& p) {
    const kangaroo_status status = check_params(p);
    if (status != KANGAROO_OK) return status;
    return launched("linear", by_dtype(p.x.dtype, [&](auto type) {
                      return run<decltype(type)>(p, static_cast<cudaStream_t>(stream));
                    }));
  });
}
