// adapter_step is linear, rope_append_kv, tree_attention and linear; adapter_refresh the norms, a
// product and rope_append_kv: the same bits as those ops one by one, and nothing written on errors.
#include "kangaroo/adapter_refresh.h"
#include "kangaroo/adapter_step.h"
#include "kangaroo/linear.h"
#include "kangaroo/rms_norm.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/tree_attention.h"
#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

constexpr int64_t kWidth = 37, kQHeads = 4, kKvHeads = 2, kHeadDim = 10, kSlots = 64, kNodes = 3;
constexpr int64_t kQWidth = kQHeads * kHeadDim, kKvWidth = kKvHeads * kHeadDim;
constexpr float kEps = 1e-5f, kScale = 0.3f;

struct State {
  Floats h = noise(kNodes * kWidth, 1), h_deep = noise(kNodes * kWidth, 2);
  Floats norm = noise(kWidth, 3), deep_norm = noise(kWidth, 4);
  Floats qkv = noise((kQWidth + 2 * kKvWidth) * kWidth, 5), o = noise(kWidth * kQWidth, 6);
  Floats deep_kv = noise(2 * kKvWidth * 2 * kWidth, 7);
  Floats k = noise(kKvHeads * kSlots * kHeadDim, 8), v = noise(kKvHeads * kSlots * kHeadDim, 9);
  Floats rope = noise(kSlots * kHeadDim, 10);
  std::vector<int32_t> positions = {20, 21, 22}, seqlens = {19};
};

Floats linear(const Floats& x, const Floats& weight, const float* norm, const float* residual,
              int64_t width, int64_t out_width) {
  Floats out(static_cast<std::size_t>(kNodes * out_width), NAN);
  kangaroo_linear_params p = {};
  p.x = x.data();
  p.weight = weight.data();
  p.norm_weight = norm;
  p.residual = residual;
  p.out = out.data();
  p.num_rows = kNodes;
  p.width = width;
  p.out_width = out_width;
  p.eps = kEps;
  p.num_threads = 1;
  EXPECT(kangaroo_linear(&p) == KANGAROO_OK);
  return out;
}

Floats append(State& s, const Floats& rows, int64_t q_heads) {
  Floats q(static_cast<std::size_t>(kNodes * q_heads * kHeadDim), NAN);
  kangaroo_rope_append_kv_params p = {};
  p.qkv = rows.data();
  p.q_out = q.data();
  p.k_cache = s.k.data();
  p.v_cache = s.v.data();
  p.rope = s.rope.data();
  p.positions = s.positions.data();
  p.cache_seqlens = s.seqlens.data();
  p.batch = 1;
  p.num_nodes = kNodes;
  p.q_heads = q_heads;
  p.kv_heads = kKvHeads;
  p.head_dim = kHeadDim;
  p.num_slots = p.num_positions = kSlots;
  p.first_node = 1;
  p.num_threads = 1;
  EXPECT(kangaroo_rope_append_kv(&p) == KANGAROO_OK);
  return q;
}

Floats attend(const State& s, const Floats& q) {
  Floats out(q.size(), NAN);
  kangaroo_tree_attention_params p = {};
  p.q = q.data();
  p.k_cache = s.k.data();
  p.v_cache = s.v.data();
  p.out = out.data();
  p.cache_seqlens = s.seqlens.data();
  p.batch = 1;
  p.num_nodes = kNodes;
  p.q_heads = kQHeads;
  p.kv_heads = kKvHeads;
  p.head_dim = kHeadDim;
  p.num_slots = kSlots;
  p.first_node = 1;
  p.scale = kScale;
  p.num_threads = 1;
  EXPECT(kangaroo_tree_attention(&p) == KANGAROO_OK);
  return out;
}

Floats step_by_ops(State& s) {
  const Floats qkv = linear(s.h, s.qkv, s.norm.data(), nullptr, kWidth, kQWidth + 2 * kKvWidth);
  const Floats heads = attend(s, append(s, qkv, kQHeads));
  return linear(heads, s.o, nullptr, s.h.data(), kQWidth, kWidth);
}

kangaroo_adapter_step_params step_params(State& s, Floats& out, int32_t threads) {
  kangaroo_adapter_step_params p = {};
  p.h = s.h.data();
  p.input_norm = s.norm.data();
  p.qkv = s.qkv.data();
  p.o = s.o.data();
  p.k_cache = s.k.data();
  p.v_cache = s.v.data();
  p.rope = s.rope.data();
  p.positions = s.positions.data();
  p.cache_seqlens = s.seqlens.data();
  p.out = out.data();
  p.batch = 1;
  p.num_nodes = kNodes;
  p.width = kWidth;
  p.q_heads = kQHeads;
  p.kv_heads = kKvHeads;
  p.head_dim = kHeadDim;
  p.num_slots = p.num_positions = kSlots;
  p.first_node = 1;
  p.eps = kEps;
  p.scale = kScale;
  p.num_threads = threads;
  return p;
}

void test_step() {
  State by_ops;
  const Floats expected = step_by_ops(by_ops);
  for (const int32_t threads : {1, 3}) {
    State s;
    Floats out(expected.size(), NAN);
    const kangaroo_adapter_step_params p = step_params(s, out, threads);
    EXPECT(kangaroo_adapter_step(&p) == KANGAROO_OK);
    EXPECT(out == expected);
    EXPECT(s.k == by_ops.k && s.v == by_ops.v);
  }
}

void test_refusals_write_nothing() {
  State s;
  const State before;
  Floats out(s.h.size());
  kangaroo_adapter_step_params p = step_params(s, out, 1);
  p.q_heads = 3;  // no multiple of the key heads
  EXPECT(kangaroo_adapter_step(&p) == KANGAROO_INVALID_ARGUMENT);
  p = step_params(s, out, 1);
  p.num_slots = 40;  // no whole chunks
  EXPECT(kangaroo_adapter_step(&p) == KANGAROO_INVALID_ARGUMENT);
  p = step_params(s, out, 1);
  s.positions[1] = static_cast<int32_t>(kSlots);
  EXPECT(kangaroo_adapter_step(&p) == KANGAROO_INVALID_ARGUMENT);
  EXPECT(s.k == before.k && s.v == before.v);
}

Floats normed(const Floats& x, const Floats& weight) {
  Floats out(x.size(), NAN);
  kangaroo_rms_norm_params p = {};
  p.x = x.data();
  p.weight = weight.data();
  p.out = out.data();
  p.num_rows = kNodes;
  p.width = kWidth;
  p.eps = kEps;
  p.num_threads = 1;
  EXPECT(kangaroo_rms_norm(&p) == KANGAROO_OK);
  return out;
}

void test_refresh() {
  State by_ops;
  const Floats x = normed(by_ops.h, by_ops.norm), y = normed(by_ops.h_deep, by_ops.deep_norm);
  Floats pairs;
  for (int64_t row = 0; row < kNodes; ++row) {
    pairs.insert(pairs.end(), x.begin() + row * kWidth, x.begin() + (row + 1) * kWidth);
    pairs.insert(pairs.end(), y.begin() + row * kWidth, y.begin() + (row + 1) * kWidth);
  }
  append(by_ops, linear(pairs, by_ops.deep_kv, nullptr, nullptr, 2 * kWidth, 2 * kKvWidth), 0);
  for (const int32_t threads : {1, 3}) {
    State s;
    kangaroo_adapter_refresh_params p = {};
    p.h = s.h.data();
    p.h_deep = s.h_deep.data();
    p.input_norm = s.norm.data();
    p.deep_norm = s.deep_norm.data();
    p.deep_kv = s.deep_kv.data();
    p.k_cache = s.k.data();
    p.v_cache = s.v.data();
    p.rope = s.rope.data();
    p.positions = s.positions.data();
    p.cache_seqlens = s.seqlens.data();
    p.batch = 1;
    p.num_nodes = kNodes;
    p.width = kWidth;
    p.kv_heads = kKvHeads;
    p.head_dim = kHeadDim;
    p.num_slots = p.num_positions = kSlots;
    p.first_node = 1;
    p.eps = kEps;
    p.num_threads = threads;
    EXPECT(kangaroo_adapter_refresh(&p) == KANGAROO_OK);
    EXPECT(s.k == by_ops.k && s.v == by_ops.v);
  }
}

}  // namespace

int main() {
  test_step();
  test_refusals_write_nothing();
  test_refresh();
  return testing::result();
}
