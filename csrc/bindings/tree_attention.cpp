#include "kangaroo/tree_attention.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace kangaroo::bindings {

void register_tree_attention(pybind11::module_& module) {
  module.attr("MAX_HEAD_DIM") = KANGAROO_MAX_HEAD_DIM;
  module.def("tree_attention", [](int dtype, Address q, int64_t q_heads, const KV& kv, Address out,
                                  const Nodes& nodes, float scale, int32_t num_threads) {
    kangaroo_tree_attention_params p = {};
    p.nodes = nodes_of(nodes);
    p.kv = kv_of(kv, dtype, p.nodes.batch);
    p.q = kangaroo_heads_of(at<void>(q), p.kv.dtype, p.nodes.batch, p.nodes.nodes, q_heads,
                            p.kv.head_dim);
    p.out = p.q;
    p.out.data = at<void>(out);
    p.scale = scale;
    p.num_threads = num_threads;
    call(kangaroo_tree_attention, p);
  });
}

}  // namespace kangaroo::bindings
