// compact_kv: cache[:, b, :, len[b] + j] <- cache[:, b, :, len[b] + path[b, j]], j < path_len[b].
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "error.h"
#include "kangaroo/compact_kv_cuda.h"

namespace kangaroo {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridY = 65535;

struct Caches {
  kangaroo_cuda_slot_cache cache[KANGAROO_MAX_CUDA_CACHES];
};

// Grid: (units of the largest cache, batch, caches). A thread owns one unit of a row, in every slot
// of one plane and head, and walks the path in order: path[j] >= j, so it never reads what it
// wrote.
template <class Unit>
__global__ void __launch_bounds__(kThreads)
    _compact_kv_kernel(const __grid_constant__ Caches caches, const int64_t* path,
                       const int32_t* path_len, const int32_t* cache_seqlens, int64_t path_stride) {
  const kangaroo_cuda_slot_cache& cache = caches.cache[blockIdx.z];
  const int64_t b = blockIdx.y;
  const int64_t units = cache.row_bytes / static_cast<int64_t>(sizeof(Unit));
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= cache.planes * cache.heads * units) return;
  const int64_t row = item / units;
  const int64_t plane = row / cache.heads;
  const int64_t head = row % cache.heads;
  const int64_t slot = ((plane * gridDim.y + b) * cache.heads + head) * cache.num_slots;
  Unit* const first =
      static_cast<Unit*>(cache.data) + (slot + cache_seqlens[b]) * units + item % units;
  for (int32_t j = 0; j < path_len[b]; ++j) {
    const int64_t from = path[b * path_stride + j];
    if (from != j) first[j * units] = first[from * units];
  }
}

template <class Unit>
cudaError_t launch(const kangaroo_compact_kv_cuda_params& p, cudaStream_t stream) {
  Caches caches = {};
  int64_t most = 0;
  for (int64_t c = 0; c < p.num_caches; ++c) {
    const kangaroo_cuda_slot_cache& cache = caches.cache[c] = p.caches[c];
    const int64_t units = cache.row_bytes / static_cast<int64_t>(sizeof(Unit));
    most = std::max(most, cache.planes * cache.heads * units);
  }
  if (most == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((most + kThreads - 1) / kThreads),
                  static_cast<unsigned>(p.batch), static_cast<unsigned>(p.num_caches));
  _compact_kv_kernel<Unit>
      <<<grid, kThreads, 0, stream>>>(caches, p.path, p.path_len, p.cache_seqlens, p.path_stride);
  return cudaGetLastError();
}

bool sixteen_byte_rows(const kangaroo_compact_kv_cuda_params& p) {
  return std::all_of(p.caches, p.caches + p.num_caches, [](const kangaroo_cuda_slot_cache& cache) {
    return cache.row_bytes % 16 == 0 && reinterpret_cast<std::uintptr_t>(cache.data) % 16 == 0;
  });
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_compact_kv_cuda(const kangaroo_compact_kv_cuda_params* params,
                                         void* stream) {
  using namespace kangaroo;
  const kangaroo_compact_kv_cuda_params& p = *params;
  const kangaroo_status status =
      check("compact_kv",
            {{"num_caches", p.num_caches}, {"batch", p.batch}, {"path_stride", p.path_stride}},
            {{"caches", p.caches, p.num_caches},
             {"path", p.path, p.batch * p.path_stride},
             {"path_len", p.path_len, p.batch},
             {"cache_seqlens", p.cache_seqlens, p.batch}});
  if (p.num_caches > KANGAROO_MAX_CUDA_CACHES || p.batch > kMaxGridY) {
    return invalid("compact_kv: expected at most %d caches and a batch of %lld, got %lld and %lld",
                   KANGAROO_MAX_CUDA_CACHES, static_cast<long long>(kMaxGridY),
                   static_cast<long long>(p.num_caches), static_cast<long long>(p.batch));
  }
  if (status != KANGAROO_OK || p.num_caches == 0 || p.batch == 0) return status;
  const auto on = static_cast<cudaStream_t>(stream);
  const cudaError_t error = sixteen_byte_rows(p) ? launch<uint4>(p, on) : launch<uint8_t>(p, on);
  return error == cudaSuccess ? KANGAROO_OK : cuda_error("compact_kv", cudaGetErrorString(error));
}
