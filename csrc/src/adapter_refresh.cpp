#include "kangaroo/adapter_refresh.h"

#include <cstring>

#include "ops.h"
#include "scratch.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_adapter_refresh_params;

constexpr int64_t kStates = 3;

// The rows [rms_norm(h); rms_norm(h_deep); rms_norm(successor)], and the keys and values made of
// them.
struct Steps {
  kangaroo_rms_norm_params norms[kStates];
  kangaroo_linear_params project;
  kangaroo_rope_append_kv_params append;
};

Steps steps_of(const Params& p, void* memory) {
  const kangaroo_dtype t = p.h.dtype;
  const int64_t rows = p.h.batch * p.h.nodes;
  const int64_t c = p.h.width;
  char* const normed = static_cast<char*>(memory);
  char* const kv = normed + rows * kStates * c * size_of(t);
  const kangaroo_states states[kStates] = {p.h, p.h_deep, p.successor};
  const kangaroo_vector weights[kStates] = {p.input_norm, p.deep_norm, p.successor_norm};
  Steps s = {};
  s.project.x = kangaroo_states_of(normed, t, p.h.batch, p.h.nodes, kStates * c);
  for (int64_t part = 0; part < kStates; ++part) {
    kangaroo_rms_norm_params& norm = s.norms[part];
    norm.x = states[part];
    norm.weight = weights[part];
    norm.out = s.project.x;
    norm.out.data = normed + part * c * size_of(t);
    norm.out.width = c;
    norm.eps = p.eps;
    norm.num_threads = p.num_threads;
  }
  s.project.weight = p.deep_kv;
  s.project.out = kangaroo_states_of(kv, t, p.h.batch, p.h.nodes, p.deep_kv.rows);
  s.append.qkv = s.project.out;
  s.append.q = kangaroo_heads_of(nullptr, t, p.h.batch, p.h.nodes, 0, p.kv.head_dim);
  s.append.kv = p.kv;
  s.append.rope = p.rope;
  s.append.nodes = p.nodes;
  s.project.num_threads = s.append.num_threads = p.num_threads;
  return s;
}

}  // namespace

void check(Check& c, const Params& p) {
  c.cpu_dtype("h", p.h.dtype);
  c.states("h", p.h);
  c.states("h_deep", p.h_deep, p.h, p.h.width, p.h.dtype);
  c.states("successor", p.successor, p.h, p.h.width, p.h.dtype);
  c.vector("input_norm", p.input_norm, p.h.width, p.h.dtype);
  c.vector("deep_norm", p.deep_norm, p.h.width, p.h.dtype);
  c.vector("successor_norm", p.successor_norm, p.h.width, p.h.dtype);
  c.kv(p.kv, p.h.batch, p.h.dtype);
  c.within("kv.heads", p.kv.heads, 0, INT32_MAX);
  c.within("kv.head_dim", p.kv.head_dim, 0, INT32_MAX / 2);
  c.within("h.width", p.h.width, 0, INT64_MAX / kStates);
  if (!c.ok()) return;
  c.matrix("deep_kv", p.deep_kv, 2 * p.kv.heads * p.kv.head_dim, kStates * p.h.width, p.h.dtype);
  c.rope(p.rope, p.kv.head_dim);
  c.nodes(p.nodes, p.h.batch, p.h.nodes, true);
  c.eps(p.eps);
  c.threads(p.num_threads);
  c.slots(p.nodes, p.kv.slots);
  c.positions(p.nodes, p.rope.positions);
}

void run(const Params& p) {
  const int64_t width = kStates * p.h.width + p.deep_kv.rows;
  const Steps s = steps_of(p, scratch<float>(Scratch::kBlock, p.h.batch * p.h.nodes, width));
  for (const kangaroo_rms_norm_params& norm : s.norms) run(norm);
  run(s.project);
  run(s.append);
}

}  // namespace kangaroo

kangaroo_status kangaroo_adapter_refresh(const kangaroo_adapter_refresh_params* params) {
  return kangaroo::checked("adapter_refresh", params);
}
