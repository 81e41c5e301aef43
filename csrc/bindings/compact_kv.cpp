#include "kangaroo/compact_kv.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"

namespace kangaroo::bindings {

void register_compact_kv(pybind11::module_& module) {
  // Every cache as (address, planes, heads, num_slots, width, plane_stride), all of the same dtype.
  module.def("compact_kv",
             [](int dtype, const std::vector<Cache>& caches, Address path, Address path_len,
                Address cache_seqlens, int64_t batch, int64_t path_stride) {
               std::vector<kangaroo_slot_cache> described;
               described.reserve(caches.size());
               for (const Cache& cache : caches) described.push_back(cache_of(cache, dtype));
               kangaroo_compact_kv_params p = {};
               p.caches = described.data();
               p.path = at<int64_t>(path);
               p.path_len = at<int32_t>(path_len);
               p.cache_seqlens = at<int32_t>(cache_seqlens);
               p.num_caches = static_cast<int64_t>(described.size());
               p.batch = batch;
               p.path_stride = path_stride;
               call(kangaroo_compact_kv, p);
             });
}

}  // namespace kangaroo::bindings
