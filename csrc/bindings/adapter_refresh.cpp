#include "kangaroo/adapter_refresh.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace kangaroo::bindings {

void register_adapter_refresh(pybind11::module_& module) {
  module.def(
      "adapter_refresh",
      [](int dtype, Address h, Address h_deep, Address successor, Address input_norm,
         Address deep_norm, Address successor_norm, Address deep_kv, const KV& kv, const Rope& rope,
         const Nodes& nodes, int64_t width, float eps, int32_t num_threads) {
        kangaroo_adapter_refresh_params p = {};
        p.nodes = nodes_of(nodes);
        p.kv = kv_of(kv, dtype, p.nodes.batch);
        p.h = states(h, dtype, p.nodes.batch, p.nodes.nodes, width);
        p.h_deep = p.successor = p.h;
        p.h_deep.data = at<void>(h_deep);
        p.successor.data = at<void>(successor);
        p.input_norm = vector(input_norm, dtype, width);
        p.deep_norm = vector(deep_norm, dtype, width);
        p.successor_norm = vector(successor_norm, dtype, width);
        p.deep_kv = matrix(deep_kv, dtype, 2 * p.kv.heads * p.kv.head_dim, 3 * width);
        p.rope = rope_of(rope);
        p.eps = eps;
        p.num_threads = num_threads;
        call(kangaroo_adapter_refresh, p);
      });
}

}  // namespace kangaroo::bindings
