#include "kangaroo/adapter_step.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_adapter_step(pybind11::module_& module) {
  module.def(
      "adapter_step",
      [](Address h, Address input_norm, Address qkv, Address o, Address k_cache, Address v_cache,
         Address rope, Address positions, Address cache_seqlens, Address ancestors, Address out,
         int64_t batch, int64_t num_nodes, int64_t width, int64_t q_heads, int64_t kv_heads,
         int64_t head_dim, int64_t num_slots, int64_t num_positions, int64_t first_node, float eps,
         float scale, int32_t num_threads) {
        kangaroo_adapter_step_params p = {};
        p.h = at<float>(h);
        p.input_norm = at<float>(input_norm);
        p.qkv = at<float>(qkv);
        p.o = at<float>(o);
        p.k_cache = at<float>(k_cache);
        p.v_cache = at<float>(v_cache);
        p.rope = at<float>(rope);
        p.positions = at<int32_t>(positions);
        p.cache_seqlens = at<int32_t>(cache_seqlens);
        p.ancestors = at<int64_t>(ancestors);
        p.out = at<float>(out);
        p.batch = batch;
        p.num_nodes = num_nodes;
        p.width = width;
        p.q_heads = q_heads;
        p.kv_heads = kv_heads;
        p.head_dim = head_dim;
        p.num_slots = num_slots;
        p.num_positions = num_positions;
        p.first_node = first_node;
        p.eps = eps;
        p.scale = scale;
        p.num_threads = num_threads;
        call(kangaroo_adapter_step, p);
      });
}

}  // namespace kangaroo::bindings
