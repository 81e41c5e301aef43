#include "kangaroo/rope_append_kv.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_rope_append_kv(pybind11::module_& module) {
  module.def(
      "rope_append_kv",
      [](Address qkv, Address q_out, Address k_cache, Address v_cache, Address rope, Address q_norm,
         Address k_norm, Address positions, Address cache_seqlens, int64_t batch, int64_t num_nodes,
         int64_t q_heads, int64_t kv_heads, int64_t head_dim, int64_t num_slots,
         int64_t num_positions, int64_t first_node, float eps, int32_t num_threads) {
        kangaroo_rope_append_kv_params p = {};
        p.qkv = at<float>(qkv);
        p.q_out = at<float>(q_out);
        p.k_cache = at<float>(k_cache);
        p.v_cache = at<float>(v_cache);
        p.rope = at<float>(rope);
        p.q_norm = at<float>(q_norm);
        p.k_norm = at<float>(k_norm);
        p.positions = at<int32_t>(positions);
        p.cache_seqlens = at<int32_t>(cache_seqlens);
        p.batch = batch;
        p.num_nodes = num_nodes;
        p.q_heads = q_heads;
        p.kv_heads = kv_heads;
        p.head_dim = head_dim;
        p.num_slots = num_slots;
        p.num_positions = num_positions;
        p.first_node = first_node;
        p.eps = eps;
        p.num_threads = num_threads;
        call(kangaroo_rope_append_kv, p);
      });
}

}  // namespace kangaroo::bindings
