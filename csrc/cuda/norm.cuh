// RMSNorm in front of a product, once for all of its blocks: rows go to a workspace.
#pragma once

#include <string>

#include "check.h"
#include "device.cuh"

namespace kangaroo {

constexpr int kNormThreads = 256;

struct Norm {
  Rows x;
  bool aligned;
  const void* weight;
  float eps;
  int64_t width;
  void* out;  // [rows, padded width], 0 behind the width
};

constexpr int64_t padded(int64_t width, int64_t item_bytes) {
  return ceil_div(width * item_bytes, 16) * 16 / item_bytes;
}

template <class T>
__global__ void __launch_bounds__(kNormThreads) _norm_kernel(const __grid_constant__ Norm n) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  auto* const squares_of_warps = shared_memory<float>();
  const T* const x = n.x.at<const T>(blockIdx.x);
  const auto* const weight = static_cast<const T*>(n.weight);
  const bool weight_aligned = n.aligned && aligned_to_16(weight);
  const auto thread = static_cast<int64_t>(threadIdx.x);
  const int64_t units = ceil_div(n.width, kUnit<T>);
  float squares = 0.0f;
  for (int64_t unit = thread; unit < units; unit += kNormThreads) {
    const int64_t column = unit * kUnit<T>;
    float values[kUnit<T>];
    widen<T>(load_unit(x + column, n.width - column, n.aligned), values);
#pragma unroll
    for (int i = 0; i < kUnit<T>; ++i) squares = fmaf(values[i], values[i], squares);
  }
  squares = warp_sum(squares);
  if (thread % kWarpSize == 0) squares_of_warps[thread / kWarpSize] = squares;
  __syncthreads();
  float sum = 0.0f;
  for (int warp = 0; warp < kNormThreads / kWarpSize; ++warp) sum += squares_of_warps[warp];
  const float inverse = inverse_rms(sum, n.width, n.eps);
  auto* const out = static_cast<uint4*>(n.out) + blockIdx.x * units;
  for (int64_t unit = thread; unit < units; unit += kNormThreads) {
    const int64_t column = unit * kUnit<T>;
    float values[kUnit<T>], factors[kUnit<T>];
    widen<T>(load_unit(x + column, n.width - column, n.aligned), values);
    widen<T>(load_unit(weight + column, n.width - column, weight_aligned), factors);
    T results[kUnit<T>];
#pragma unroll
    for (int i = 0; i < kUnit<T>; ++i) {
      results[i] = narrow<T>(rounded<T>(values[i] * inverse) * factors[i]);
    }
    out[unit] = packed(results);
  }
}

inline int64_t norm_bytes(const kangaroo_states& x) {
  return x.batch * x.nodes * padded(x.width, size_of(x.dtype)) * size_of(x.dtype);
}

// Rows and widths whose workspace has a size, and a launch its blocks.
inline void check_rows(Check& check, const std::string& name, const kangaroo_states& x) {
  constexpr int64_t kMost = 1 << 28;
  check.gpu_dtype(name.c_str(), x.dtype);
  check.states(name.c_str(), x);
  check.within((name + ".width").c_str(), x.width, 0, kMost);
  check.within((name + ".batch").c_str(), x.batch, 0, kMost);
  check.within((name + ".nodes").c_str(), x.nodes, 0, kMost);
  if (check.ok()) check.within((name + ": batch times nodes").c_str(), x.batch * x.nodes, 0, kMost);
}

inline kangaroo_status check_workspace(const char* op, const void* workspace, int64_t bytes) {
  if (bytes == 0 || (workspace && aligned_to_16(workspace))) return KANGAROO_OK;
  return invalid("%s: workspace: expected an address aligned to 16 bytes, got %p", op, workspace);
}

// Workspace <- the normalized rows of x, which are returned.
template <class T>
cudaError_t normalize(const kangaroo_states& x, const void* weight, float eps, void* workspace,
                      cudaStream_t stream, Rows* rows) {
  const bool nodes = x.nodes <= 1 || x.node_stride % kUnit<T> == 0;
  const bool batch = x.batch <= 1 || x.batch_stride % kUnit<T> == 0;
  const bool aligned = nodes && batch && aligned_to_16(x.data) && x.width % kUnit<T> == 0;
  const Norm norm = {rows_of(x), aligned, weight, eps, x.width, workspace};
  *rows = {workspace, x.batch * x.nodes, 0, padded(x.width, sizeof(T))};
  const Blocks blocks = {x.width == 0 ? 0 : x.batch * x.nodes, kNormThreads,
                         kNormThreads / kWarpSize * static_cast<int>(sizeof(float))};
  return launch(_norm_kernel<T>, blocks, stream, norm);
}

}  // namespace kangaroo
