#include "kangaroo/adapter_step.h"

#include "error.h"
#include "kangaroo/linear.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/tree_attention.h"
#include "scratch.h"

namespace kangaroo {
namespace {

using Params = kangaroo_adapter_step_params;

// What rope_append_kv does not check: nothing may be written for a call that fails later.
kangaroo_status check_params(const Params& p) {
  const int64_t states = p.batch * p.num_nodes * p.width;
  const int64_t heads = p.q_heads * p.head_dim;
  const kangaroo_status status =
      check("adapter_step", {{"width", p.width}},
            {{"h", p.h, states},
             {"input_norm", p.input_norm, p.width},
             {"qkv", p.qkv, (p.q_heads + 2 * p.kv_heads) * p.head_dim * p.width},
             {"o", p.o, p.width * heads},
             {"out", p.out, states}});
  if (status != KANGAROO_OK) return status;
  kangaroo_tree_attention_params none = {};
  none.q_heads = p.q_heads;
  none.kv_heads = p.kv_heads;
  none.head_dim = p.head_dim;
  none.num_slots = p.num_slots;
  return kangaroo_tree_attention(&none);
}

kangaroo_status project(const Params& p, float* qkv) {
  kangaroo_linear_params linear = {};
  linear.x = p.h;
  linear.weight = p.qkv;
  linear.norm_weight = p.input_norm;
  linear.out = qkv;
  linear.num_rows = p.batch * p.num_nodes;
  linear.width = p.width;
  linear.out_width = (p.q_heads + 2 * p.kv_heads) * p.head_dim;
  linear.eps = p.eps;
  linear.num_threads = p.num_threads;
  return kangaroo_linear(&linear);
}

kangaroo_status append(const Params& p, const float* qkv, float* q) {
  kangaroo_rope_append_kv_params rope = {};
  rope.qkv = qkv;
  rope.q_out = q;
  rope.k_cache = p.k_cache;
  rope.v_cache = p.v_cache;
  rope.rope = p.rope;
  rope.positions = p.positions;
  rope.cache_seqlens = p.cache_seqlens;
  rope.batch = p.batch;
  rope.num_nodes = p.num_nodes;
  rope.q_heads = p.q_heads;
  rope.kv_heads = p.kv_heads;
  rope.head_dim = p.head_dim;
  rope.num_slots = p.num_slots;
  rope.num_positions = p.num_positions;
  rope.first_node = p.first_node;
  rope.num_threads = p.num_threads;
  return kangaroo_rope_append_kv(&rope);
}

kangaroo_status attend(const Params& p, const float* q, float* heads) {
  kangaroo_tree_attention_params attention = {};
  attention.q = q;
  attention.k_cache = p.k_cache;
  attention.v_cache = p.v_cache;
  attention.out = heads;
  attention.cache_seqlens = p.cache_seqlens;
  attention.ancestors = p.ancestors;
  attention.batch = p.batch;
  attention.num_nodes = p.num_nodes;
  attention.q_heads = p.q_heads;
  attention.kv_heads = p.kv_heads;
  attention.head_dim = p.head_dim;
  attention.num_slots = p.num_slots;
  attention.first_node = p.first_node;
  attention.scale = p.scale;
  attention.num_threads = p.num_threads;
  return kangaroo_tree_attention(&attention);
}

kangaroo_status leave(const Params& p, const float* heads) {
  kangaroo_linear_params linear = {};
  linear.x = heads;
  linear.weight = p.o;
  linear.residual = p.h;
  linear.out = p.out;
  linear.num_rows = p.batch * p.num_nodes;
  linear.width = p.q_heads * p.head_dim;
  linear.out_width = p.width;
  linear.num_threads = p.num_threads;
  return kangaroo_linear(&linear);
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_adapter_step(const kangaroo_adapter_step_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const Params& p = *params;
    kangaroo_status status = check_params(p);
    if (status != KANGAROO_OK) return status;
    const int64_t rows = p.batch * p.num_nodes;
    const int64_t q_width = p.q_heads * p.head_dim;
    const int64_t qkv_width = q_width + 2 * p.kv_heads * p.head_dim;
    float* qkv = scratch<float>(Scratch::kAdapter, rows * (qkv_width + 2 * q_width));
    float* q = qkv + rows * qkv_width;
    float* heads = q + rows * q_width;
    status = project(p, qkv);
    if (status == KANGAROO_OK) status = append(p, qkv, q);
    if (status == KANGAROO_OK) status = attend(p, q, heads);
    return status == KANGAROO_OK ? leave(p, heads) : status;
  });
}
