#include <pybind11/stl.h>

#include "cuda.h"

namespace kangaroo::bindings {

void register_rope_append_kv_cuda(pybind11::module_& module) {
  module.def("rope_append_kv_cuda", [](int dtype, Address qkv, Address q, int64_t q_heads,
                                       const KV& kv, const Rope& rope, Address q_norm,
                                       Address k_norm, const Nodes& nodes, float eps,
                                       Address stream) {
    kangaroo_rope_append_kv_params p = {};
    p.nodes = nodes_of(nodes);
    p.kv = kv_of(kv, dtype, p.nodes.batch);
    const int64_t d = p.kv.head_dim;
    p.qkv = states(qkv, dtype, p.nodes.batch, p.nodes.nodes, (q_heads + 2 * p.kv.heads) * d);
    p.q = kangaroo_heads_of(at<void>(q), p.kv.dtype, p.nodes.batch, p.nodes.nodes, q_heads, d);
    p.rope = rope_of(rope);
    p.q_norm = vector(q_norm, dtype, d);
    p.k_norm = vector(k_norm, dtype, d);
    p.eps = eps;
    call([stream](const auto* r) { return kangaroo_rope_append_kv_cuda(r, at<void>(stream)); }, p);
  });
}

}  // namespace kangaroo::bindings
