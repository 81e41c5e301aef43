#include "kangaroo/tree_attention.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_tree_attention(pybind11::module_& module) {
  module.attr("MAX_HEAD_DIM") = KANGAROO_MAX_HEAD_DIM;
  module.def("tree_attention",
             [](Address q, Address k_cache, Address v_cache, Address out, Address cache_seqlens,
                Address ancestors, int64_t batch, int64_t num_nodes, int64_t q_heads,
                int64_t kv_heads, int64_t head_dim, int64_t num_slots, int64_t first_node,
                float scale, int32_t num_threads) {
               kangaroo_tree_attention_params p = {};
               p.q = at<float>(q);
               p.k_cache = at<float>(k_cache);
               p.v_cache = at<float>(v_cache);
               p.out = at<float>(out);
               p.cache_seqlens = at<int32_t>(cache_seqlens);
               p.ancestors = at<int64_t>(ancestors);
               p.batch = batch;
               p.num_nodes = num_nodes;
               p.q_heads = q_heads;
               p.kv_heads = kv_heads;
               p.head_dim = head_dim;
               p.num_slots = num_slots;
               p.first_node = first_node;
               p.scale = scale;
               p.num_threads = num_threads;
               call(kangaroo_tree_attention, p);
             });
}

}  // namespace kangaroo::bindings
