#include "kangaroo/compact_kv.h"

#include <cstring>

#include "error.h"

namespace kangaroo {
namespace {

using Params = kangaroo_compact_kv_params;

kangaroo_status check_path(const Params& p, int64_t b) {
  const int64_t* path = p.path + b * p.path_stride;
  const int64_t length = p.path_len[b];
  if (length < 0 || length > p.path_stride || p.cache_seqlens[b] < 0) {
    return invalid(
        "compact_kv: sequence %lld: expected path_len in [0, %lld] and cache_seqlens >= 0, got "
        "%lld "
        "and %d",
        static_cast<long long>(b), static_cast<long long>(p.path_stride),
        static_cast<long long>(length), p.cache_seqlens[b]);
  }
  for (int64_t j = 0; j < length; ++j) {
    if (path[j] < 0 || (j > 0 && path[j] <= path[j - 1])) {
      return invalid("compact_kv: path[%lld]: expected strictly increasing nodes >= 0, got %lld",
                     static_cast<long long>(b), static_cast<long long>(path[j]));
    }
  }
  for (int64_t c = 0; c < p.num_caches && length > 0; ++c) {
    if (path[length - 1] >= p.caches[c].num_slots - p.cache_seqlens[b]) {
      return invalid(
          "compact_kv: path[%lld]: expected slots below %lld in cache %lld, got %d + %lld",
          static_cast<long long>(b), static_cast<long long>(p.caches[c].num_slots),
          static_cast<long long>(c), p.cache_seqlens[b], static_cast<long long>(path[length - 1]));
    }
  }
  return KANGAROO_OK;
}

kangaroo_status check_params(const Params& p) {
  kangaroo_status status =
      check("compact_kv",
            {{"num_caches", p.num_caches}, {"batch", p.batch}, {"path_stride", p.path_stride}},
            {{"caches", p.caches, p.num_caches},
             {"path", p.path, p.batch * p.path_stride},
             {"path_len", p.path_len, p.batch},
             {"cache_seqlens", p.cache_seqlens, p.batch}});
  for (int64_t c = 0; c < p.num_caches && status == KANGAROO_OK; ++c) {
    const kangaroo_slot_cache& cache = p.caches[c];
    const int64_t count = cache.planes * p.batch * cache.heads * cache.num_slots * cache.width;
    status = check("compact_kv",
                   {{"planes", cache.planes},
                    {"heads", cache.heads},
                    {"num_slots", cache.num_slots},
                    {"width", cache.width}},
                   {{"data", cache.data, count}});
  }
  for (int64_t b = 0; b < p.batch && status == KANGAROO_OK; ++b) status = check_path(p, b);
  return status;
}

// A path is increasing, so path[j] >= j: in order, no row is read after it was overwritten.
void compact(const Params& p, const kangaroo_slot_cache& cache, int64_t b) {
  const int64_t* path = p.path + b * p.path_stride;
  int64_t first = 0;
  while (first < p.path_len[b] && path[first] == first)
    ++first;  // in place already: all of a chain
  if (first == p.path_len[b]) return;
  const auto bytes = static_cast<std::size_t>(cache.width) * sizeof(float);
  for (int64_t plane = 0; plane < cache.planes; ++plane) {
    for (int64_t head = 0; head < cache.heads; ++head) {
      const int64_t row = ((plane * p.batch + b) * cache.heads + head) * cache.num_slots;
      float* slots = cache.data + (row + p.cache_seqlens[b]) * cache.width;
      for (int64_t j = first; j < p.path_len[b]; ++j) {
        std::memcpy(slots + j * cache.width, slots + path[j] * cache.width, bytes);
      }
    }
  }
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_compact_kv(const kangaroo_compact_kv_params* params) {
  using namespace kangaroo;
  const Params& p = *params;
  const kangaroo_status status = check_params(p);
  if (status != KANGAROO_OK) return status;
  for (int64_t c = 0; c < p.num_caches; ++c) {
    for (int64_t b = 0; b < p.batch; ++b) compact(p, p.caches[c], b);
  }
  return KANGAROO_OK;
}
