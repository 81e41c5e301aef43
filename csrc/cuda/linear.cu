// linear: residual + (rms_norm(x) W^T + bias). One launch, or two with the norm.
#include "check.h"
#include "gemm.cuh"
#include "kangaroo/cuda.h"
#include "norm.cuh"

namespace kangaroo {
namespace {

using Params = kangaroo_linear_params;

struct Behind {
  const void* bias;  // or NULL
  Rows residual;     // of no address: absent
  Rows out;
  bool unrounded;  // out is float32
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, Tile::kBlocks)
    _linear_kernel(const __grid_constant__ Product p, const __grid_constant__ Behind behind) {
  using T = typename Tile::T;
  let_next_kernel_start();
  const int64_t first_row = blockIdx.x % p.row_blocks * Tile::kRows;
  const int64_t first_out = blockIdx.x / p.row_blocks * Tile::kTileN;
  const float* const partials = multiply<Tile>(p, first_row, first_out);
  for (int item = static_cast<int>(threadIdx.x); item < Tile::kRows * Tile::kTileN;
       item += kGemmThreads) {
    const int64_t row = first_row + item / Tile::kTileN;
    const int64_t out = first_out + item % Tile::kTileN;
    if (row >= p.num_rows) return;
    if (out >= p.num_out) continue;
    float sum = sum_of<Tile>(partials, item / Tile::kTileN, item % Tile::kTileN);
    if (behind.bias) sum += wide(static_cast<const T*>(behind.bias)[out]);
    if (behind.residual.data) sum += wide(behind.residual.at<const T>(row)[out]);
    if (behind.unrounded) {
      behind.out.at<float>(row)[out] = sum;
    } else {
      behind.out.at<T>(row)[out] = narrow<T>(sum);
    }
  }
}

template <class Tile>
cudaError_t run_tiles(Product p, const Behind& behind, cudaStream_t stream) {
  p.row_blocks = ceil_div(p.num_rows, Tile::kRows);
  const Blocks blocks = {p.row_blocks * ceil_div(p.num_out, Tile::kTileN), kGemmThreads,
                         Tile::kSharedBytes};
  return launch(_linear_kernel<Tile>, blocks, stream, p, behind);
}

template <class T, int kTileN>
cudaError_t run_wide(const Product& p, const Behind& behind, cudaStream_t stream) {
  return p.num_rows <= kMmaRows ? run_tiles<Tile<T, kTileN, 1, true>>(p, behind, stream)
                                : run_tiles<Tile<T, kTileN, 4, true>>(p, behind, stream);
}

// Every variant that a shape of the weight can meet adds in the same order.
template <class T>
cudaError_t run_product(const Product& p, const Behind& behind, cudaStream_t stream) {
  const bool is_aligned = aligned(p, sizeof(T));
  if constexpr (kIsFloat<T>) {
    return is_aligned ? run_tiles<Tile<T, 16, 1, true>>(p, behind, stream)
                      : run_tiles<Tile<T, 16, 1, false>>(p, behind, stream);
  } else {
    const int outs = tile_outs(p.num_out);
    if (!is_aligned) {
      return outs == 64 ? run_tiles<Tile<T, 64, 1, false>>(p, behind, stream)
                        : run_tiles<Tile<T, 16, 1, false>>(p, behind, stream);
    }
    return outs == 64   ? run_wide<T, 64>(p, behind, stream)
           : outs == 32 ? run_wide<T, 32>(p, behind, stream)
                        : run_wide<T, 16>(p, behind, stream);
  }
}

template <class T>
cudaError_t run(const Params& p, void* workspace, cudaStream_t stream) {
  Rows rows = rows_of(p.x);
  cudaError_t error = cudaSuccess;
  if (p.norm.data) error = normalize<T>(p.x, p.norm.data, p.eps, workspace, stream, &rows);
  const int64_t num_rows = p.x.batch * p.x.nodes;
  if (error != cudaSuccess || num_rows == 0) return error;
  const Product product = {rows,
                           num_rows,
                           p.weight.data,
                           p.weight.row_stride,
                           p.weight.rows,
                           p.x.width,
                           nullptr,
                           p.weight.rows,
                           1};
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
}  // namespace kangaroo

int64_t kangaroo_linear_cuda_workspace(const kangaroo_linear_params* params) {
  using namespace kangaroo;
  const kangaroo_status status = entry("linear", params, check_params);
  return status != KANGAROO_OK ? -1 : params->norm.data ? norm_bytes(params->x) : 0;
}

kangaroo_status kangaroo_linear_cuda(const kangaroo_linear_params* params, void* workspace,
                                     void* stream) {
  using namespace kangaroo;
  return entry("linear", params, [=](const Params& p) {
    kangaroo_status status = check_params(p);
    if (status == KANGAROO_OK && p.norm.data) {
      status = check_workspace("linear", workspace, norm_bytes(p.x));
    }
    if (status != KANGAROO_OK) return status;
    return launched("linear", by_dtype(p.x.dtype, [&](auto type) {
                      return run<decltype(type)>(p, workspace, static_cast<cudaStream_t>(stream));
                    }));
  });
}
