// Kernels of a round. None depends on how many threads it has, as long as they are one warp.
#include "round_kernels.h"

namespace kangaroo {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ int64_t clamped(int64_t value, int64_t least, int64_t most) {
  return value < least ? least : value > most ? most : value;
}

__device__ bool ends(const RoundPublishParams& p, int64_t token) {
  bool found = false;
  for (int64_t e = 0; e < p.num_eos; ++e) found |= p.eos_ids[e] == token;
  return found;
}

// Token j of the round, from 1; the one behind the path is the bonus token.
__device__ int64_t token_at(const RoundPublishParams& p, int64_t b, int64_t j, int64_t path_len) {
  if (j == path_len) return p.bonus[b];
  const int64_t node = p.path ? p.path[b * p.path_stride + j] : j;
  return p.tokens[b * p.token_stride + clamped(node, 0, p.nodes - 1)];
}

__device__ void publish(const RoundPublishParams& p, const RoundSlot& slot, int64_t b) {
  const int64_t path_len = clamped(p.path_len[b], 1, p.nodes);
  int64_t* const tokens = slot.tokens + b * p.nodes;
  int32_t remaining = p.state.remaining[b];
  int32_t num_tokens = 0;
  bool done = p.state.done[b] != 0;
  for (int64_t j = 1; j <= path_len && !done; ++j) {
    const int64_t token = token_at(p, b, j, path_len);
    tokens[num_tokens++] = token;
    done = --remaining <= 0 || ends(p, token);
  }
  p.state.remaining[b] = remaining;
  p.state.done[b] = done;
  slot.num_tokens[b] = num_tokens;
  slot.done[b] = done;
  slot.path_len[b] = static_cast<int32_t>(path_len);
  slot.num_nodes[b] = p.num_nodes ? p.num_nodes[b] : static_cast<int32_t>(p.nodes);
}

}  // namespace

__global__ void __launch_bounds__(kRoundThreads) _round_start_kernel(const RoundStartParams p) {
  if (threadIdx.x != 0) return;
  p.state.remaining[p.sequence] = p.max_tokens;
  p.state.done[p.sequence] = p.max_tokens <= 0;
}

__global__ void __launch_bounds__(kRoundThreads) _round_open_kernel(const RoundOpenParams p) {
  int running = 0;
  for (int64_t b = threadIdx.x; b < p.batch; b += blockDim.x) {
    const bool done = p.state.done[b] != 0;
    p.stopped[b] = done;
    if (p.num_nodes) p.num_nodes[b] = 1;
    running |= !done;
  }
  running = __any_sync(kAllLanes, running);
  if (threadIdx.x != 0) return;
  *p.state.num_steps = running || !p.conditional ? p.num_steps : 0;
  if (p.conditional) cudaGraphSetConditional(p.handle, static_cast<unsigned>(running));
}

__global__ void __launch_bounds__(kRoundThreads) _round_gate_kernel(const RoundGateParams p) {
  int running = 0;
  for (int64_t b = threadIdx.x; b < p.batch; b += blockDim.x) {
    running |= (p.flags[b] == 0) == p.of_step;
  }
  running = __any_sync(kAllLanes, running);
  if (threadIdx.x != 0) return;
  if (running && p.of_step) ++*p.state.num_steps;
  cudaGraphSetConditional(p.handle, static_cast<unsigned>(running));
}

__global__ void __launch_bounds__(kRoundThreads) _round_publish_kernel(const RoundPublishParams p) {
  const uint64_t round = *p.state.published;
  const RoundSlot slot = slot_of(p.ring, round);
  for (int64_t b = threadIdx.x; b < p.ring.batch; b += blockDim.x) publish(p, slot, b);
  if (threadIdx.x == 0) *slot.num_steps = *p.state.num_steps;
  __threadfence_system();  // each lane's own writes, before the one that the host looks for
  __syncwarp();
  if (threadIdx.x == 0) {
    *p.state.published = round + 1;
    *static_cast<volatile uint64_t*>(slot.sequence) = round + 1;
  }
}

}  // namespace kangaroo
