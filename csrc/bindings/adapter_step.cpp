#include "kangaroo/adapter_step.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace kangaroo::bindings {

void register_adapter_step(pybind11::module_& module) {
  module.def("adapter_step", [](int dtype, Address h, Address input_norm, Address qkv, Address o,
                                int64_t q_width, const KV& kv, const Rope& rope, const Nodes& nodes,
                                Address out, int64_t width, float eps, int32_t num_threads) {
    kangaroo_adapter_step_params p = {};
    p.nodes = nodes_of(nodes);
    p.kv = kv_of(kv, dtype, p.nodes.batch);
    p.h = states(h, dtype, p.nodes.batch, p.nodes.nodes, width);
    p.input_norm = vector(input_norm, dtype, width);
    p.qkv = matrix(qkv, dtype, q_width + 2 * p.kv.heads * p.kv.head_dim, width);
    p.o = matrix(o, dtype, width, q_width);
    p.rope = rope_of(rope);
    p.out = p.h;
    p.out.data = at<void>(out);
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_adapter_step, p);
  });
}

}  // namespace kangaroo::bindings
