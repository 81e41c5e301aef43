#include "kangaroo/decoder_layers.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace kangaroo::bindings {

void register_decoder_layers(pybind11::module_& module) {
  module.def("decoder_layers", [](int dtype, Address h, Address layers, int64_t num_layers,
                                  const KV& kv, int64_t layer_stride, const Rope& rope,
                                  const Nodes& nodes, Address out, int64_t width, int64_t q_heads,
                                  int64_t intermediate, float eps, int32_t num_threads) {
    kangaroo_decoder_layers_params p = {};
    p.nodes = nodes_of(nodes);
    p.h = states(h, dtype, p.nodes.batch, p.nodes.nodes, width);
    p.layers = at<kangaroo_layer_weights>(layers);
    p.num_layers = num_layers;
    p.kv = kv_of(kv, dtype, p.nodes.batch);
    p.layer_stride = layer_stride;
    p.rope = rope_of(rope);
    p.out = p.h;
    p.out.data = at<void>(out);
    p.q_heads = q_heads;
    p.intermediate = intermediate;
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_decoder_layers, p);
  });
}

}  // namespace kangaroo::bindings
