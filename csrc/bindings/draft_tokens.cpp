#include "kangaroo/draft_tokens.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace kangaroo::bindings {
namespace {

// (layer weights, how many, keys and values of the first, their stride, query heads, intermediate,
// eps)
using Layers = std::tuple<Address, int64_t, KV, int64_t, int64_t, int64_t, float>;
// (input_norm, qkv, o, keys and values, eps)
using Adapter = std::tuple<Address, Address, Address, KV, float>;

kangaroo_decoder_layers_params layers_of(const Layers& described, int dtype) {
  const auto [layers, num_layers, kv, layer_stride, q_heads, intermediate, eps] = described;
  kangaroo_decoder_layers_params p = {};
  p.layers = at<kangaroo_layer_weights>(layers);
  p.num_layers = num_layers;
  p.kv = kv_of(kv, dtype, 1);
  p.layer_stride = layer_stride;
  p.q_heads = q_heads;
  p.intermediate = intermediate;
  p.eps = eps;
  return p;
}

kangaroo_adapter_step_params adapter_of(const Adapter& described, int dtype, int64_t width,
                                        int64_t q_width) {
  const auto [input_norm, qkv, o, kv, eps] = described;
  kangaroo_adapter_step_params p = {};
  p.kv = kv_of(kv, dtype, 1);
  p.input_norm = vector(input_norm, dtype, width);
  p.qkv = matrix(qkv, dtype, q_width + 2 * p.kv.heads * p.kv.head_dim, width);
  p.o = matrix(o, dtype, width, q_width);
  p.eps = eps;
  return p;
}

}  // namespace

void register_draft_tokens(pybind11::module_& module) {
  module.def(
      "draft_tokens",
      [](int dtype, Address embed, int64_t vocab, int64_t width, const Layers& layers,
         const Adapter& adapter, int64_t q_width, const Rope& rope, const Nodes& nodes,
         const Nodes& adapter_nodes, Address exit_states, const Head& head, Address norm,
         Address tokens, Address confidence, float threshold, float eps, int32_t num_threads) {
        int64_t num_tokens = 0;
        kangaroo_draft_tokens_params p = {};
        p.embed = matrix(embed, dtype, vocab, width);
        p.layers = layers_of(layers, dtype);
        p.layers.nodes = nodes_of(nodes);
        p.adapter = adapter_of(adapter, dtype, width, q_width);
        p.adapter.nodes = nodes_of(adapter_nodes);
        p.layers.rope = p.adapter.rope = rope_of(rope);
        p.exit_states = states(exit_states, dtype, 1, p.adapter.nodes.nodes, width);
        p.head = head_of(head, dtype, width);
        p.norm = vector(norm, dtype, width);
        p.tokens = at<int64_t>(tokens);
        p.confidence = at<float>(confidence);
        p.num_tokens = &num_tokens;
        p.threshold = threshold;
        p.eps = eps;
        p.layers.num_threads = p.adapter.num_threads = p.num_threads = num_threads;
        call(kangaroo_draft_tokens, p);
        return num_tokens;
      });
}

}  // namespace kangaroo::bindings
