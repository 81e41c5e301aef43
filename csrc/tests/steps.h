// Single ops as functions of tensors, for tests of ops that promise to be several of them in turn.
#pragma once

#include "kangaroo/gated_mlp.h"
#include "kangaroo/linear.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/tree_attention.h"
#include "testing.h"

namespace testing {

// Where the nodes of a call stand, and the caches of one layer.
struct Place {
  kangaroo_kv kv;
  kangaroo_rope rope;
  kangaroo_nodes nodes;
  float eps;
};

// What a call may have beside its product; NULL: absent.
struct Beside {
  const Tensor* norm = nullptr;
  const Tensor* bias = nullptr;
  const Tensor* residual = nullptr;
};

inline Tensor linear(const Place& at, const Tensor& x, const Tensor& weight, const Beside& beside) {
  const int64_t batch = at.nodes.batch, nodes = at.nodes.nodes;
  const int64_t outs = weight.size() / (x.size() / (batch * nodes));
  Tensor out(x.dtype, batch * nodes * outs);
  kangaroo_linear_params p = {};
  p.x = states_of(x, batch, nodes);
  p.weight = matrix_of(weight, outs);
  if (beside.norm) p.norm = vector_of(*beside.norm);
  if (beside.bias) p.bias = vector_of(*beside.bias);
  if (beside.residual) p.residual = states_of(*beside.residual, batch, nodes);
  p.out = states_of(out, batch, nodes);
  p.eps = at.eps;
  p.num_threads = 1;
  EXPECT(kangaroo_linear(&p) == KANGAROO_OK);
  return out;
}

inline Tensor append(const Place& at, const Tensor& qkv, int64_t q_heads, const Tensor* q_norm,
                     const Tensor* k_norm) {
  const int64_t batch = at.nodes.batch, nodes = at.nodes.nodes, d = at.kv.head_dim;
  Tensor q(qkv.dtype, batch * nodes * q_heads * d);
  kangaroo_rope_append_kv_params p = {};
  p.qkv = states_of(qkv, batch, nodes);
  p.q = kangaroo_heads_of(q.address(), q.dtype, batch, nodes, q_heads, d);
  p.kv = at.kv;
  p.rope = at.rope;
  if (q_norm) p.q_norm = vector_of(*q_norm);
  if (k_norm) p.k_norm = vector_of(*k_norm);
  p.nodes = at.nodes;
  p.eps = at.eps;
  p.num_threads = 1;
  EXPECT(kangaroo_rope_append_kv(&p) == KANGAROO_OK);
  return q;
}

inline Tensor attend(const Place& at, const Tensor& q) {
  const int64_t batch = at.nodes.batch, nodes = at.nodes.nodes, d = at.kv.head_dim;
  Tensor out(q.dtype, q.size());
  kangaroo_tree_attention_params p = {};
  p.q = kangaroo_heads_of(data_of(q), q.dtype, batch, nodes, q.size() / (batch * nodes * d), d);
  p.kv = at.kv;
  p.out = p.q;
  p.out.data = out.address();
  p.nodes = at.nodes;
  p.scale = 1.0f / std::sqrt(static_cast<float>(d));
  p.num_threads = 1;
  EXPECT(kangaroo_tree_attention(&p) == KANGAROO_OK);
  return out;
}

inline Tensor gated_mlp(const Place& at, const Tensor& x, const Tensor& norm, const Tensor& gate_up,
                        const Tensor& down) {
  Tensor out(x.dtype, x.size());
  kangaroo_gated_mlp_params p = {};
  p.x = states_of(x, at.nodes.batch, at.nodes.nodes);
  p.gate_up = matrix_of(gate_up, gate_up.size() / norm.size());
  p.down = matrix_of(down, norm.size());
  p.norm = vector_of(norm);
  p.out = states_of(out, at.nodes.batch, at.nodes.nodes);
  p.eps = at.eps;
  p.num_threads = 1;
  EXPECT(kangaroo_gated_mlp(&p) == KANGAROO_OK);
  return out;
}

}  // namespace testing
