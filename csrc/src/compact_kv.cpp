#include "kangaroo/compact_kv.h"

#include <cstring>

#include "check.h"

namespace kangaroo {
namespace {

using Params = kangaroo_compact_kv_params;

void check_path(Check& c, const Params& p, int64_t b) {
  const int64_t* path = p.path + b * p.path_stride;
  const int64_t length = p.path_len[b];
  c.within("path_len", length, 0, p.path_stride);
  c.at_least("cache_seqlens", p.cache_seqlens[b], 0);
  for (int64_t j = 0; c.ok() && j < length; ++j) {
    const int64_t before = j > 0 ? path[j - 1] : -1;
    if (path[j] <= before) {
      c.refuse("path: expected strictly increasing nodes, here above %lld, got %lld", before,
               path[j]);
    }
  }
  for (int64_t i = 0; c.ok() && i < p.num_caches && length > 0; ++i) {
    const int64_t free = p.caches[i].slots - p.cache_seqlens[b];
    if (path[length - 1] >= free) {
      c.refuse("path: expected nodes below %lld, the slots behind cache_seqlens, got %lld", free,
               path[length - 1]);
    }
  }
}

// A path is increasing, so path[j] >= j: in order, no row is read after it was overwritten.
void compact(const Params& p, const kangaroo_slot_cache& cache, int64_t b) {
  const int64_t* path = p.path + b * p.path_stride;
  int64_t first = 0;
  while (first < p.path_len[b] && path[first] == first) {
    ++first;  // in place already: all of a chain
  }
  if (first == p.path_len[b]) return;
  const int64_t item = size_of(cache.dtype);
  const auto bytes = static_cast<std::size_t>(cache.width * item);
  for (int64_t plane = 0; plane < cache.planes; ++plane) {
    for (int64_t head = 0; head < cache.heads; ++head) {
      const int64_t row = plane * cache.plane_stride + b * cache.batch_stride +
                          head * cache.head_stride + p.cache_seqlens[b] * cache.slot_stride;
      char* slots = static_cast<char*>(cache.data) + row * item;
      for (int64_t j = first; j < p.path_len[b]; ++j) {
        const int64_t stride = cache.slot_stride * item;
        std::memcpy(slots + j * stride, slots + path[j] * stride, bytes);
      }
    }
  }
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_compact_kv(const kangaroo_compact_kv_params* params) {
  using namespace kangaroo;
  return entry("compact_kv", params, [](const Params& p) {
    Check c("compact_kv");
    c.at_least("batch", p.batch, 0);
    c.at_least("path_stride", p.path_stride, 0);
    c.array("caches", p.caches, p.num_caches, 1, sizeof(kangaroo_slot_cache));
    c.array("path", p.path, p.batch, p.path_stride, sizeof(int64_t));
    c.array("path_len", p.path_len, p.batch, 1, sizeof(int32_t));
    c.array("cache_seqlens", p.cache_seqlens, p.batch, 1, sizeof(int32_t));
    for (int64_t i = 0; c.ok() && i < p.num_caches; ++i) c.cache(p.caches[i], p.batch);
    for (int64_t b = 0; c.ok() && b < p.batch; ++b) check_path(c, p, b);
    if (!c.ok()) return c.status();
    for (int64_t i = 0; i < p.num_caches; ++i) {
      for (int64_t b = 0; b < p.batch; ++b) compact(p, p.caches[i], b);
    }
    return KANGAROO_OK;
  });
}
