#include "kangaroo/adapter_refresh.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_adapter_refresh(pybind11::module_& module) {
  module.def("adapter_refresh",
             [](Address h, Address h_deep, Address input_norm, Address deep_norm, Address deep_kv,
                Address k_cache, Address v_cache, Address rope, Address positions,
                Address cache_seqlens, int64_t batch, int64_t num_nodes, int64_t width,
                int64_t kv_heads, int64_t head_dim, int64_t num_slots, int64_t num_positions,
                int64_t first_node, float eps, int32_t num_threads) {
               kangaroo_adapter_refresh_params p = {};
               p.h = at<float>(h);
               p.h_deep = at<float>(h_deep);
               p.input_norm = at<float>(input_norm);
               p.deep_norm = at<float>(deep_norm);
               p.deep_kv = at<float>(deep_kv);
               p.k_cache = at<float>(k_cache);
               p.v_cache = at<float>(v_cache);
               p.rope = at<float>(rope);
               p.positions = at<int32_t>(positions);
               p.cache_seqlens = at<int32_t>(cache_seqlens);
               p.batch = batch;
               p.num_nodes = num_nodes;
               p.width = width;
               p.kv_heads = kv_heads;
               p.head_dim = head_dim;
               p.num_slots = num_slots;
               p.num_positions = num_positions;
               p.first_node = first_node;
               p.eps = eps;
               p.num_threads = num_threads;
               call(kangaroo_adapter_refresh, p);
             });
}

}  // namespace kangaroo::bindings
