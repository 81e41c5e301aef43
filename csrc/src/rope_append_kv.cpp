#include "kangaroo/rope_append_kv.h"

#include <cstring>

#include "error.h"
#include "isa/kernels.h"
#include "parallel.h"

namespace kangaroo {
namespace {

using Params = kangaroo_rope_append_kv_params;

kangaroo_status check_params(const Params& p) {
  const int64_t rows = p.batch * p.num_nodes;
  const int64_t cached = p.batch * p.kv_heads * p.num_slots * p.head_dim;
  const kangaroo_status status =
      check("rope_append_kv",
            {{"batch", p.batch},
             {"num_nodes", p.num_nodes},
             {"q_heads", p.q_heads},
             {"kv_heads", p.kv_heads},
             {"head_dim", p.head_dim},
             {"num_slots", p.num_slots},
             {"num_positions", p.num_positions},
             {"first_node", p.first_node}},
            {{"qkv", p.qkv, rows * (p.q_heads + 2 * p.kv_heads) * p.head_dim},
             {"q_out", p.q_out, rows * p.q_heads * p.head_dim},
             {"k_cache", p.k_cache, cached},
             {"v_cache", p.v_cache, cached},
             {"rope", p.rope, p.num_positions * p.head_dim},
             {"positions", p.positions, rows},
             {"cache_seqlens", p.cache_seqlens, p.batch}});
  if (status != KANGAROO_OK) return status;
  if (p.head_dim % 2) {
    return invalid("rope_append_kv: head_dim: expected an even number, got %lld",
                   static_cast<long long>(p.head_dim));
  }
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t end = p.cache_seqlens[b] + p.first_node + p.num_nodes;
    if (p.cache_seqlens[b] < 0 || end > p.num_slots) {
      return invalid(
          "rope_append_kv: cache_seqlens[%lld]: expected nodes in slots [0, %lld), got [%lld, "
          "%lld)",
          static_cast<long long>(b), static_cast<long long>(p.num_slots),
          static_cast<long long>(p.cache_seqlens[b] + p.first_node), static_cast<long long>(end));
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (p.positions[row] < 0 || p.positions[row] >= p.num_positions) {
      return invalid("rope_append_kv: positions: expected values in [0, %lld), got %d",
                     static_cast<long long>(p.num_positions), p.positions[row]);
    }
  }
  return KANGAROO_OK;
}

// Optional norm, then rotation, of one head.
void place_head(const Params& p, const float* head, const float* norm, int32_t position,
                float* out) {
  const Kernels& k = kernels();
  const int64_t half = p.head_dim / 2;
  const float* cos = p.rope + position * half;
  const float* sin = cos + p.num_positions * half;
  if (norm) k.rms_norm(head, norm, p.eps, p.head_dim, out);
  k.rotate(norm ? out : head, cos, sin, half, out);
}

void place_row(const Params& p, int64_t row) {
  const int64_t b = row / p.num_nodes;
  const int64_t slot = p.cache_seqlens[b] + p.first_node + row % p.num_nodes;
  const int64_t d = p.head_dim;
  const float* q = p.qkv + row * (p.q_heads + 2 * p.kv_heads) * d;
  const float* k = q + p.q_heads * d;
  const float* v = k + p.kv_heads * d;
  for (int64_t h = 0; h < p.q_heads; ++h) {
    place_head(p, q + h * d, p.q_norm, p.positions[row], p.q_out + (row * p.q_heads + h) * d);
  }
  for (int64_t h = 0; h < p.kv_heads; ++h) {
    const int64_t at = ((b * p.kv_heads + h) * p.num_slots + slot) * d;
    place_head(p, k + h * d, p.k_norm, p.positions[row], p.k_cache + at);
    std::memcpy(p.v_cache + at, v + h * d, static_cast<std::size_t>(d) * sizeof(float));
  }
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_rope_append_kv(const kangaroo_rope_append_kv_params* params) {
  using namespace kangaroo;
  const Params& p = *params;
  const kangaroo_status status = check_params(p);
  if (status != KANGAROO_OK) return status;
  const int64_t rows = p.batch * p.num_nodes;
  const int64_t work = 4 * (p.q_heads + 2 * p.kv_heads) * p.head_dim;
  const int64_t grain = grain_for(rows, work, 1, p.num_threads);
  parallel_for(rows, grain, p.num_threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) place_row(p, row);
  });
  return KANGAROO_OK;
}
