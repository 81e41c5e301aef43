// compact_kv: slot len[b] + j <- slot len[b] + path[b, j], j < path_len[b], in all caches.
#include <algorithm>

#include "check.h"
#include "device.cuh"
#include "kangaroo/cuda.h"

namespace kangaroo {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxCaches = 16;  // of one launch
constexpr int kBatched = 4;     // rows under way in a thread

struct Cache {
  char* data;
  int64_t heads, slots;
  int64_t units;                                                 // of a row
  int64_t plane_stride, batch_stride, head_stride, slot_stride;  // in units
  int64_t items;
  int64_t first_block;
  int unit_bytes;
};

struct Caches {
  Cache cache[kMaxCaches];
  int count;
};

struct Paths {
  const int64_t* path;
  const int32_t* path_len;
  const int32_t* cache_seqlens;
  int64_t batch;
  int64_t path_stride;
};

// One unit of a row, in every slot of one plane, sequence and head. path[j] >= j, so a source never
// lies among the slots written before it, and loads may run ahead of stores. A path that breaks
// this, or leaves the cache, moves less: memory stays whole.
template <class Unit>
__device__ void move(const Cache& cache, const Paths& paths, int64_t item) {
  const int64_t row = item / cache.units;
  const int64_t b = row / cache.heads % paths.batch;
  const int64_t plane = row / cache.heads / paths.batch;
  const int64_t seqlen = paths.cache_seqlens[b];
  if (seqlen < 0 || seqlen >= cache.slots) return;
  Unit* const first = reinterpret_cast<Unit*>(cache.data) + plane * cache.plane_stride +
                      b * cache.batch_stride + row % cache.heads * cache.head_stride +
                      seqlen * cache.slot_stride + item % cache.units;
  int64_t length = paths.path_len[b];
  if (length > paths.path_stride) length = paths.path_stride;
  for (int64_t start = 0; start < length; start += kBatched) {
    Unit kept[kBatched] = {};
    bool moves[kBatched];
#pragma unroll
    for (int i = 0; i < kBatched; ++i) {
      const int64_t j = start + i;
      const int64_t from = j < length ? paths.path[b * paths.path_stride + j] : j;
      moves[i] = from > j && from < cache.slots - seqlen;
      if (moves[i]) kept[i] = first[from * cache.slot_stride];
    }
#pragma unroll
    for (int i = 0; i < kBatched; ++i) {
      if (moves[i]) first[(start + i) * cache.slot_stride] = kept[i];
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    _compact_kv_kernel(const __grid_constant__ Caches caches, const __grid_constant__ Paths paths) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int64_t block = blockIdx.x;
  int mine = 0;
  while (mine + 1 < caches.count && block >= caches.cache[mine + 1].first_block) ++mine;
  const Cache& cache = caches.cache[mine];
  const int64_t item = (block - cache.first_block) * kThreads + threadIdx.x;
  if (item >= cache.items) return;
  switch (cache.unit_bytes) {
    case 16:
      return move<uint4>(cache, paths, item);
    case 8:
      return move<uint64_t>(cache, paths, item);
    case 4:
      return move<uint32_t>(cache, paths, item);
    default:
      return move<uint16_t>(cache, paths, item);
  }
}

// The largest unit that rows, strides and the address are multiples of.
Cache described(const kangaroo_slot_cache& c, int64_t batch) {
  const int64_t item = size_of(c.dtype);
  int64_t common = static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(c.data) |
                                        static_cast<std::uintptr_t>(c.width * item));
  common |= (c.plane_stride | c.batch_stride | c.head_stride | c.slot_stride) * item;
  int64_t unit = 16;
  while (common % unit) unit /= 2;
  const int64_t rows = c.planes * batch * c.heads;
  const int64_t units = c.width * item / unit;
  return {static_cast<char*>(c.data),
          c.heads,
          c.slots,
          units,
          c.plane_stride * item / unit,
          c.batch_stride * item / unit,
          c.head_stride * item / unit,
          c.slot_stride * item / unit,
          c.slots == 0 ? 0 : rows * units,
          0,
          static_cast<int>(unit)};
}

cudaError_t run(const kangaroo_compact_kv_params& p, int64_t first_cache, cudaStream_t stream) {
  Caches caches = {};
  int64_t blocks = 0;
  const int64_t last = std::min<int64_t>(first_cache + kMaxCaches, p.num_caches);
  for (int64_t c = first_cache; c < last; ++c) {
    Cache cache = described(p.caches[c], p.batch);
    if (cache.items == 0) continue;
    cache.first_block = blocks;
    blocks += ceil_div(cache.items, kThreads);
    caches.cache[caches.count++] = cache;
  }
  const Paths paths = {p.path, p.path_len, p.cache_seqlens, p.batch, p.path_stride};
  return launch(_compact_kv_kernel, {blocks, kThreads, 0}, stream, caches, paths);
}

kangaroo_status check_params(const kangaroo_compact_kv_params& p) {
  Check check("compact_kv");
  check.array("caches", p.caches, p.num_caches, 1, sizeof(kangaroo_slot_cache));
  check.array("path", p.path, p.batch, p.path_stride, sizeof(int64_t));
  check.array("path_len", p.path_len, p.batch, 1, sizeof(int32_t));
  check.array("cache_seqlens", p.cache_seqlens, p.batch, 1, sizeof(int32_t));
  for (int64_t c = 0; check.ok() && c < p.num_caches; ++c) {
    check.cache(p.caches[c], p.batch);
  }
  return check.status();
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_compact_kv_cuda(const kangaroo_compact_kv_params* params, void* stream) {
  using namespace kangaroo;
  return entry("compact_kv", params, [stream](const kangaroo_compact_kv_params& p) {
    const kangaroo_status status = check_params(p);
    cudaError_t error = cudaSuccess;
    for (int64_t c = 0; status == KANGAROO_OK && error == cudaSuccess && c < p.num_caches;
         c += kMaxCaches) {
      error = run(p, c, static_cast<cudaStream_t>(stream));
    }
    return status == KANGAROO_OK ? launched("compact_kv", error) : status;
  });
}
