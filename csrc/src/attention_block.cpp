#include "attention_block.h"

#include <cmath>

#include "ops.h"
#include "scratch.h"

namespace kangaroo {
namespace {

// The four ops in turn, and where their results lie in between.
struct Steps {
  kangaroo_linear_params project;
  kangaroo_rope_append_kv_params append;
  kangaroo_tree_attention_params attend;
  kangaroo_linear_params leave;
};

Steps steps_of(const AttentionBlock& b, const kangaroo_states& h, const kangaroo_states& out,
               void* memory) {
  const int64_t d = b.kv.head_dim;
  const int64_t q_heads = d > 0 ? b.o.width / d : 0;
  char* const qkv = static_cast<char*>(memory);
  const int64_t rows = h.batch * h.nodes;
  char* const q = memory ? qkv + rows * b.qkv.rows * size_of(h.dtype) : nullptr;
  char* const heads = memory ? q + rows * b.o.width * size_of(h.dtype) : nullptr;
  Steps s = {};
  s.project.x = h;
  s.project.weight = b.qkv;
  s.project.bias = b.qkv_bias;
  s.project.norm = b.norm;
  s.project.out = kangaroo_states_of(qkv, h.dtype, h.batch, h.nodes, b.qkv.rows);
  s.append.qkv = s.project.out;
  s.append.q = kangaroo_heads_of(q, h.dtype, h.batch, h.nodes, q_heads, d);
  s.append.q_norm = b.q_norm;
  s.append.k_norm = b.k_norm;
  s.append.rope = b.rope;
  s.attend.q = s.append.q;
  s.attend.out = kangaroo_heads_of(heads, h.dtype, h.batch, h.nodes, q_heads, d);
  s.attend.scale = 1.0f / std::sqrt(static_cast<float>(d > 0 ? d : 1));
  s.leave.x = kangaroo_states_of(heads, h.dtype, h.batch, h.nodes, b.o.width);
  s.leave.weight = b.o;
  s.leave.bias = b.o_bias;
  s.leave.residual = h;
  s.leave.out = out;
  s.append.kv = s.attend.kv = b.kv;
  s.append.nodes = s.attend.nodes = b.nodes;
  s.project.eps = s.append.eps = b.eps;
  s.project.num_threads = s.append.num_threads = b.num_threads;
  s.attend.num_threads = s.leave.num_threads = b.num_threads;
  return s;
}

}  // namespace

void check(Check& c, const AttentionBlock& b, const kangaroo_states& h,
           const kangaroo_states& out) {
  c.cpu_dtype("h", h.dtype);
  c.states("h", h);
  c.vector("input_norm", b.norm, h.width, h.dtype);
  c.within("kv.heads", b.kv.heads, 1, INT32_MAX);
  c.within("kv.head_dim", b.kv.head_dim, 1, KANGAROO_MAX_HEAD_DIM);
  if (!c.ok()) return;
  const int64_t kv_width = 2 * b.kv.heads * b.kv.head_dim;
  c.within("o.width", b.o.width, 0, INT64_MAX - kv_width);
  if (!c.ok()) return;
  if (b.o.width % (b.kv.heads * b.kv.head_dim)) {
    c.refuse("o.width: expected a multiple of %lld, the heads of keys, got %lld",
             b.kv.heads * b.kv.head_dim, b.o.width);
  }
  c.matrix("qkv", b.qkv, b.o.width + kv_width, h.width, h.dtype);
  c.optional("qkv_bias", b.qkv_bias, b.qkv.rows, h.dtype);
  c.optional("q_norm", b.q_norm, b.kv.head_dim, h.dtype);
  c.optional("k_norm", b.k_norm, b.kv.head_dim, h.dtype);
  c.matrix("o", b.o, h.width, b.o.width, h.dtype);
  c.optional("o_bias", b.o_bias, h.width, h.dtype);
  c.states("out", out, h, h.width, h.dtype);
  c.kv(b.kv, h.batch, h.dtype);
  if (c.ok() && b.kv.slots % KANGAROO_KV_CHUNK) {
    c.refuse("kv.slots: expected a multiple of %lld, got %lld", KANGAROO_KV_CHUNK, b.kv.slots);
  }
  c.rope(b.rope, b.kv.head_dim);
  c.nodes(b.nodes, h.batch, h.nodes, true);
  c.eps(b.eps);
  c.threads(b.num_threads);
  c.slots(b.nodes, b.kv.slots);
  c.positions(b.nodes, b.rope.positions);
}

void run(const AttentionBlock& b, const kangaroo_states& h, const kangaroo_states& out) {
  const int64_t width = b.qkv.rows + 2 * b.o.width;
  const Steps s = steps_of(b, h, out, scratch<float>(Scratch::kBlock, h.batch * h.nodes, width));
  run(s.project);
  run(s.append);
  run(s.attend);
  run(s.leave);
}

}  // namespace kangaroo
