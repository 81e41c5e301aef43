#include "kangaroo/rope_append_kv.h"

#include <cstring>

#include "ops.h"
#include "parallel.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_rope_append_kv_params;

// Optional norm, then rotation, of one head.
void place_head(const Params& p, const char* head, const void* norm, int64_t position, char* out) {
  const TypedKernels& k = kernels(p.qkv.dtype);
  const float* cos = p.rope.table + position * p.rope.half;
  const float* sin = cos + p.rope.positions * p.rope.half;
  if (norm) k.rms_norm(head, norm, p.eps, p.kv.head_dim, out);
  k.rotate(norm ? out : head, cos, sin, p.rope.half, out);
}

void place_row(const Params& p, int64_t row) {
  const int64_t item = size_of(p.qkv.dtype);
  const int64_t b = row / p.nodes.nodes;
  const int64_t i = row % p.nodes.nodes;
  const int64_t slot = p.nodes.cache_seqlens[b] + p.nodes.first_node + i;
  const int64_t position = p.nodes.positions[b * p.nodes.position_stride + i];
  const int64_t head_bytes = p.kv.head_dim * item;
  const char* head = rows_of(p.qkv).at(row);
  char* const q =
      static_cast<char*>(p.q.data) + (b * p.q.batch_stride + i * p.q.node_stride) * item;
  for (int64_t h = 0; h < p.q.heads; ++h, head += head_bytes) {
    place_head(p, head, p.q_norm.data, position, q + h * p.q.head_stride * item);
  }
  const char* value = head + p.kv.heads * head_bytes;
  for (int64_t h = 0; h < p.kv.heads; ++h, head += head_bytes, value += head_bytes) {
    const int64_t at =
        (b * p.kv.batch_stride + h * p.kv.head_stride + slot * p.kv.slot_stride) * item;
    place_head(p, head, p.k_norm.data, position, static_cast<char*>(p.kv.k) + at);
    std::memcpy(static_cast<char*>(p.kv.v) + at, value, static_cast<std::size_t>(head_bytes));
  }
}

}  // namespace

void check(Check& c, const Params& p) {
  c.cpu_dtype("qkv", p.qkv.dtype);
  c.states("qkv", p.qkv);
  c.kv(p.kv, p.qkv.batch, p.qkv.dtype);
  c.rope(p.rope, p.kv.head_dim);
  kangaroo_heads like = p.q;
  like.dtype = p.qkv.dtype;
  like.batch = p.qkv.batch;
  like.nodes = p.qkv.nodes;
  like.head_dim = p.kv.head_dim;
  c.heads("q", p.q, like);
  if (!c.ok()) return;
  c.within("q.heads", p.q.heads, 0, INT32_MAX);
  c.within("kv.heads", p.kv.heads, 0, INT32_MAX);
  c.within("kv.head_dim", p.kv.head_dim, 0, INT32_MAX / 2);
  const int64_t width = c.ok() ? (p.q.heads + 2 * p.kv.heads) * p.kv.head_dim : 0;
  c.within("qkv.width", p.qkv.width, width, width);
  c.optional("q_norm", p.q_norm, p.kv.head_dim, p.qkv.dtype);
  c.optional("k_norm", p.k_norm, p.kv.head_dim, p.qkv.dtype);
  c.nodes(p.nodes, p.qkv.batch, p.qkv.nodes, true);
  c.eps(p.eps);
  c.threads(p.num_threads);
  c.slots(p.nodes, p.kv.slots);
  c.positions(p.nodes, p.rope.positions);
}

void run(const Params& p) {
  const int64_t rows = p.qkv.batch * p.qkv.nodes;
  const int64_t work = 4 * p.qkv.width;
  const int64_t grain = grain_for(rows, work, 1, p.num_threads);
  parallel_for(rows, grain, p.num_threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) place_row(p, row);
  });
}

}  // namespace kangaroo

kangaroo_status kangaroo_rope_append_kv(const kangaroo_rope_append_kv_params* params) {
  return kangaroo::checked("rope_append_kv", params);
}
