#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "cuda.h"

namespace kangaroo::bindings {

void register_compact_kv_cuda(pybind11::module_& module) {
  // Every cache with its dtype in front.
  module.def("compact_kv_cuda", [](const std::vector<std::pair<int, Cache>>& caches, Address path,
                                   Address path_len, Address cache_seqlens, int64_t batch,
                                   int64_t path_stride, Address stream) {
    std::vector<kangaroo_slot_cache> described;
    described.reserve(caches.size());
    for (const auto& [dtype, cache] : caches) described.push_back(cache_of(cache, dtype));
    kangaroo_compact_kv_params p = {};
    p.caches = described.data();
    p.path = at<int64_t>(path);
    p.path_len = at<int32_t>(path_len);
    p.cache_seqlens = at<int32_t>(cache_seqlens);
    p.num_caches = static_cast<int64_t>(described.size());
    p.batch = batch;
    p.path_stride = path_stride;
    call([stream](const auto* q) { return kangaroo_compact_kv_cuda(q, at<void>(stream)); }, p);
  });
}

}  // namespace kangaroo::bindings
