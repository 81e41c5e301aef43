#include "kangaroo/adapter_refresh.h"

#include <cstring>

#include "error.h"
#include "kangaroo/linear.h"
#include "kangaroo/rope_append_kv.h"
#include "rows.h"
#include "scratch.h"

namespace kangaroo {
namespace {

using Params = kangaroo_adapter_refresh_params;

kangaroo_status check_params(const Params& p) {
  const int64_t states = p.batch * p.num_nodes * p.width;
  return check("adapter_refresh", {{"width", p.width}},
               {{"h", p.h, states},
                {"h_deep", p.h_deep, states},
                {"input_norm", p.input_norm, p.width},
                {"deep_norm", p.deep_norm, p.width},
                {"deep_kv", p.deep_kv, 4 * p.kv_heads * p.head_dim * p.width}});
}

// rows[i] = [rms_norm(h[i]); rms_norm(h_deep[i])].
void pair_states(const Params& p, float* normed, float* pairs) {
  const int64_t num_rows = p.batch * p.num_nodes;
  const auto bytes = static_cast<std::size_t>(p.width) * sizeof(float);
  const float* states[] = {p.h, p.h_deep};
  const float* norms[] = {p.input_norm, p.deep_norm};
  for (int half = 0; half < 2; ++half) {
    normalize(states[half], norms[half], p.eps, num_rows, p.width, normed, p.num_threads);
    for (int64_t row = 0; row < num_rows; ++row) {
      std::memcpy(pairs + (2 * row + half) * p.width, normed + row * p.width, bytes);
    }
  }
}

kangaroo_status project(const Params& p, const float* pairs, float* kv) {
  kangaroo_linear_params linear = {};
  linear.x = pairs;
  linear.weight = p.deep_kv;
  linear.out = kv;
  linear.num_rows = p.batch * p.num_nodes;
  linear.width = 2 * p.width;
  linear.out_width = 2 * p.kv_heads * p.head_dim;
  linear.num_threads = p.num_threads;
  return kangaroo_linear(&linear);
}

kangaroo_status write(const Params& p, const float* kv) {
  kangaroo_rope_append_kv_params rope = {};
  rope.qkv = kv;
  rope.k_cache = p.k_cache;
  rope.v_cache = p.v_cache;
  rope.rope = p.rope;
  rope.positions = p.positions;
  rope.cache_seqlens = p.cache_seqlens;
  rope.batch = p.batch;
  rope.num_nodes = p.num_nodes;
  rope.kv_heads = p.kv_heads;
  rope.head_dim = p.head_dim;
  rope.num_slots = p.num_slots;
  rope.num_positions = p.num_positions;
  rope.first_node = p.first_node;
  rope.num_threads = p.num_threads;
  return kangaroo_rope_append_kv(&rope);
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_adapter_refresh(const kangaroo_adapter_refresh_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const Params& p = *params;
    kangaroo_status status = check_params(p);
    if (status != KANGAROO_OK) return status;
    const int64_t num_rows = p.batch * p.num_nodes;
    const int64_t kv_width = 2 * p.kv_heads * p.head_dim;
    float* pairs = scratch<float>(Scratch::kAdapter, num_rows * (3 * p.width + kv_width));
    float* normed = pairs + num_rows * 2 * p.width;
    float* kv = normed + num_rows * p.width;
    pair_states(p, normed, pairs);
    status = project(p, pairs, kv);
    return status == KANGAROO_OK ? write(p, kv) : status;
  });
}
