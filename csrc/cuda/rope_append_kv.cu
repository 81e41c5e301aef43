// rope_append_kv: a warp takes one head of one node: norm, rotation, and where it belongs.
#include "check.h"
#include "device.cuh"
#include "kangaroo/cuda.h"

namespace kangaroo {
namespace {

using Params = kangaroo_rope_append_kv_params;

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;

// `to` <- the head, normalized where `norm` is given and rotated; the warp's lanes take a pair of
// the rotation each.
template <class T>
__device__ void place(const Params& p, const T* head, const T* norm, int64_t position, T* to) {
  const auto lane = static_cast<int64_t>(threadIdx.x % kWarpSize);
  const int64_t half = p.rope.half;
  float inverse = 1.0f;
  if (norm) {
    float squares = 0.0f;
    for (int64_t i = lane; i < 2 * half; i += kWarpSize) squares += wide(head[i]) * wide(head[i]);
    inverse = inverse_rms(warp_sum(squares), 2 * half, p.eps);
  }
  const float* const cos = p.rope.table + position * half;
  const float* const sin = cos + p.rope.positions * half;
  for (int64_t pair = lane; pair < half; pair += kWarpSize) {
    T first = head[pair];
    T second = head[half + pair];
    if (norm) {
      first = normalized(first, inverse, norm[pair]);
      second = normalized(second, inverse, norm[half + pair]);
    }
    const float a = wide(first), b = wide(second);
    to[pair] = narrow<T>(a * cos[pair] - b * sin[pair]);
    to[half + pair] = narrow<T>(b * cos[pair] + a * sin[pair]);
  }
}

// Lengths and positions are what the device holds: a slot outside the cache is not written, a
// position outside the table is its nearest.
template <class T>
__global__ void __launch_bounds__(kThreads)
    _rope_append_kv_kernel(const __grid_constant__ Params p) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int64_t heads = p.q.heads + 2 * p.kv.heads;
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  if (item >= p.qkv.batch * p.qkv.nodes * heads) return;
  const int64_t b = item / heads / p.qkv.nodes;
  const int64_t node = item / heads % p.qkv.nodes;
  const int64_t head = item % heads;
  const int64_t dim = p.kv.head_dim;
  const T* const from = static_cast<const T*>(p.qkv.data) + b * p.qkv.batch_stride +
                        node * p.qkv.node_stride + head * dim;
  int64_t position = p.nodes.positions[b * p.nodes.position_stride + node];
  if (position >= p.rope.positions) position = p.rope.positions - 1;
  if (position < 0) position = 0;
  if (head < p.q.heads) {
    T* const to = static_cast<T*>(p.q.data) + b * p.q.batch_stride + node * p.q.node_stride +
                  head * p.q.head_stride;
    return place(p, from, static_cast<const T*>(p.q_norm.data), position, to);
  }
  const int64_t seqlen = p.nodes.cache_seqlens[b];
  const int64_t slot = seqlen + p.nodes.first_node + node;
  if (seqlen < 0 || slot >= p.kv.slots) return;
  const int64_t kv_head = (head - p.q.heads) % p.kv.heads;
  const int64_t at = b * p.kv.batch_stride + kv_head * p.kv.head_stride + slot * p.kv.slot_stride;
  if (head < p.q.heads + p.kv.heads) {
    return place(p, from, static_cast<const T*>(p.k_norm.data), position,
                 static_cast<T*>(p.kv.k) + at);
  }
  T* const to = static_cast<T*>(p.kv.v) + at;
  for (int64_t i = threadIdx.x % kWarpSize; i < dim; i += kWarpSize) to[i] = from[i];
}

kangaroo_status check_params(const Params& p) {
  Check check("rope_append_kv");
  check.gpu_dtype("qkv", p.qkv.dtype);
  check.states("qkv", p.qkv);
  check.kv(p.kv, p.qkv.batch, p.qkv.dtype);
  check.rope(p.rope, p.kv.head_dim);
  kangaroo_heads like = p.q;
  like.dtype = p.qkv.dtype;
  like.batch = p.qkv.batch;
  like.nodes = p.qkv.nodes;
  like.head_dim = p.kv.head_dim;
  check.heads("q", p.q, like);
  check.within("q.heads", p.q.heads, 0, INT32_MAX);
  check.within("kv.heads", p.kv.heads, 0, INT32_MAX);
  check.within("kv.head_dim", p.kv.head_dim, 0, INT32_MAX / 2);
  const int64_t width = check.ok() ? (p.q.heads + 2 * p.kv.heads) * p.kv.head_dim : 0;
  check.within("qkv.width", p.qkv.width, width, width);
  check.optional("q_norm", p.q_norm, p.kv.head_dim, p.qkv.dtype);
  check.optional("k_norm", p.k_norm, p.kv.head_dim, p.qkv.dtype);
  check.nodes(p.nodes, p.qkv.batch, p.qkv.nodes, true);
  if (p.qkv.batch > 0 && p.qkv.nodes > 0) check.at_least("rope.positions", p.rope.positions, 1);
  check.eps(p.eps);
  return check.status();
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_rope_append_kv_cuda(const kangaroo_rope_append_kv_params* params,
                                             void* stream) {
  using namespace kangaroo;
  return entry("rope_append_kv", params, [stream](const Params& p) {
    const kangaroo_status status = check_params(p);
    if (status != KANGAROO_OK) return status;
    const int64_t items = p.qkv.batch * p.qkv.nodes * (p.q.heads + 2 * p.kv.heads);
    const Blocks blocks = {p.qkv.width == 0 ? 0 : ceil_div(items, kWarps), kThreads, 0};
    return launched("rope_append_kv", by_dtype(p.qkv.dtype, [&](auto type) {
                      return launch(_rope_append_kv_kernel<decltype(type)>, blocks,
                                    static_cast<cudaStream_t>(stream), p);
                    }));
  });
}
