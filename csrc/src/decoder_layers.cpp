#include "kangaroo/decoder_layers.h"

#include "attention_block.h"
#include "ops.h"
#include "scratch.h"

namespace kangaroo {
namespace {

using Params = kangaroo_decoder_layers_params;

// Half a layer, and the other half.
struct Layer {
  AttentionBlock attention;
  kangaroo_gated_mlp_params mlp;
};

Layer layer_of(const Params& p, int64_t number) {
  const kangaroo_layer_weights& w = p.layers[number];
  const kangaroo_dtype t = p.h.dtype;
  const int64_t c = p.h.width;
  const int64_t d = p.kv.head_dim;
  const int64_t qkv_width = (p.q_heads + 2 * p.kv.heads) * d;
  const int64_t bytes = number * p.layer_stride * size_of(t);
  Layer layer = {};
  AttentionBlock& a = layer.attention;
  a.norm = kangaroo_vector_of(w.input_norm, t, c);
  a.qkv = kangaroo_matrix_of(w.qkv, t, qkv_width, c);
  a.qkv_bias = kangaroo_vector_of(w.qkv_bias, t, qkv_width);
  a.q_norm = kangaroo_vector_of(w.q_norm, t, d);
  a.k_norm = kangaroo_vector_of(w.k_norm, t, d);
  a.o = kangaroo_matrix_of(w.o, t, c, p.q_heads * d);
  a.o_bias = kangaroo_vector_of(w.o_bias, t, c);
  a.kv = p.kv;
  a.kv.k = static_cast<char*>(p.kv.k) + bytes;
  a.kv.v = static_cast<char*>(p.kv.v) + bytes;
  a.rope = p.rope;
  a.nodes = p.nodes;
  layer.mlp.gate_up = kangaroo_matrix_of(w.gate_up, t, 2 * p.intermediate, c);
  layer.mlp.down = kangaroo_matrix_of(w.down, t, c, p.intermediate);
  layer.mlp.norm = kangaroo_vector_of(w.post_norm, t, c);
  a.eps = layer.mlp.eps = p.eps;
  a.num_threads = layer.mlp.num_threads = p.num_threads;
  return layer;
}

}  // namespace

void check(Check& c, const Params& p) {
  c.at_least("num_layers", p.num_layers, 1);
  c.array("layers", p.layers, p.num_layers, 1, sizeof(kangaroo_layer_weights));
  c.cpu_dtype("h", p.h.dtype);
  c.states("h", p.h);
  c.within("kv.heads", p.kv.heads, 1, INT32_MAX);
  c.within("kv.head_dim", p.kv.head_dim, 1, KANGAROO_MAX_HEAD_DIM);
  c.within("q_heads", p.q_heads, 0, INT32_MAX);
  c.within("intermediate", p.intermediate, 0, INT64_MAX / 2);
  c.at_least("layer_stride", p.layer_stride, 0);
  c.kv(p.kv, p.h.batch, p.h.dtype, p.num_layers, p.layer_stride);
  for (int64_t number = 0; c.ok() && number < p.num_layers; ++number) {
    Layer layer = layer_of(p, number);
    check(c, layer.attention, p.h, p.out);
    layer.mlp.x = layer.mlp.out = p.out;
    check(c, layer.mlp);
  }
}

void run(const Params& p) {
  const int64_t count = p.h.batch * p.h.nodes * p.h.width;
  if (count == 0) return;
  char* const memory = scratch<char>(Scratch::kLayers, 2 * count, size_of(p.h.dtype));
  const auto states = [&](char* at) {
    return kangaroo_states_of(at, p.h.dtype, p.h.batch, p.h.nodes, p.h.width);
  };
  const kangaroo_states between = states(memory);
  const kangaroo_states behind = states(memory + count * size_of(p.h.dtype));
  kangaroo_states h = p.h;
  for (int64_t number = 0; number < p.num_layers; ++number) {
    Layer layer = layer_of(p, number);
    run(layer.attention, h, between);
    layer.mlp.x = between;
    layer.mlp.out = number + 1 == p.num_layers ? p.out : behind;
    run(layer.mlp);
    h = behind;
  }
}

}  // namespace kangaroo

kangaroo_status kangaroo_decoder_layers(const kangaroo_decoder_layers_params* params) {
  return kangaroo::checked("decoder_layers", params);
}
