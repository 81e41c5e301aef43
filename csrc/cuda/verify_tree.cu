// verify_tree: one block walks one sequence's tree, and reads the logits of its path alone.
#include "check.h"
#include "kangaroo/cuda.h"
#include "rank.cuh"

namespace kangaroo {
namespace {

using Params = kangaroo_verify_tree_params;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpSize;
constexpr unsigned kInFlight = 4;  // loads of a thread

template <class T>
__device__ __forceinline__ uint64_t best_of_unit(const uint4& unit, unsigned first_id) {
  float values[kUnit<T>];
  widen<T>(unit, values);
  uint64_t best = 0;
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) {
    best = larger(best, ranked(values[i], first_id + static_cast<unsigned>(i)));
  }
  return best;
}

// This thread's part of the row: 16 bytes at a time where the row's address allows it.
template <class T>
__device__ uint64_t best_of_thread(const T* logits, unsigned vocab) {
  uint64_t best = 0;
  const auto thread = static_cast<unsigned>(threadIdx.x);
  const unsigned units = aligned_to_16(logits) ? vocab / kUnit<T> : 0;
  for (unsigned start = thread; start < units; start += kInFlight * kThreads) {
    uint4 loaded[kInFlight];  // all before the first is looked at: one block hides its own latency
#pragma unroll
    for (unsigned i = 0; i < kInFlight; ++i) {
      const unsigned unit = start + i * kThreads;
      if (unit < units) loaded[i] = reinterpret_cast<const uint4*>(logits)[unit];
    }
#pragma unroll
    for (unsigned i = 0; i < kInFlight; ++i) {
      const unsigned unit = start + i * kThreads;
      if (unit < units) best = larger(best, best_of_unit<T>(loaded[i], unit * kUnit<T>));
    }
  }
  for (unsigned id = units * kUnit<T> + thread; id < vocab; id += kThreads) {
    best = larger(best, ranked(wide(logits[id]), id));
  }
  return best;
}

// The lowest id of the largest logit, for all threads; -1 where that is not finite.
template <class T>
__device__ int64_t argmax(const T* logits, unsigned vocab) {
  auto* const best_of_warps = shared_memory<uint64_t>();
  const uint64_t own = warp_largest(best_of_thread(logits, vocab));
  __syncthreads();  // of the row before, all have been read
  if (threadIdx.x % kWarpSize == 0) best_of_warps[threadIdx.x / kWarpSize] = own;
  __syncthreads();
  uint64_t best = 0;
  for (int warp = 0; warp < kWarps; ++warp) best = larger(best, best_of_warps[warp]);
  return fabsf(value_of(best)) < __builtin_inff() ? static_cast<int64_t>(id_of(best)) : -1;
}

// Parents stand in front of their children, so one pass in order walks the whole path.
template <class T>
__global__ void __launch_bounds__(kThreads) _verify_tree_kernel(const __grid_constant__ Params p) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int64_t b = blockIdx.x;
  const int64_t nodes = p.logits.nodes;
  const auto vocab = static_cast<unsigned>(p.logits.width);
  const T* const rows = static_cast<const T*>(p.logits.data) + b * p.logits.batch_stride;
  int64_t* const path = p.path + b * nodes;
  int64_t* const successors = p.successors ? p.successors + b * nodes : nullptr;
  const bool writes = threadIdx.x == 0;
  if (writes) path[0] = 0;
  int64_t last = 0;
  int32_t length = 1;
  const auto choice_after = [&](int64_t node) {
    if (p.choices) return p.choices[b * nodes + node];
    return argmax(rows + node * p.logits.node_stride, vocab);
  };
  int64_t choice = choice_after(0);
  if (writes && successors) successors[0] = choice < 0 ? 0 : choice;
  const int64_t wanted = p.num_nodes ? p.num_nodes[b] : nodes;
  const int64_t num_nodes = wanted < 1 ? 1 : wanted < nodes ? wanted : nodes;
  for (int64_t node = 1; node < num_nodes; ++node) {
    const bool met = p.parents[b * nodes + node] == last && p.tokens[b * nodes + node] == choice;
    const bool kept = met && choice >= 0;
    if (kept) {
      last = node;
      if (writes) path[length] = node;
      ++length;
      choice = choice_after(node);
    }
    if (writes && successors) successors[node] = kept && choice > 0 ? choice : 0;
  }
  for (int64_t j = num_nodes + threadIdx.x; successors && j < nodes; j += kThreads) {
    successors[j] = 0;
  }
  for (int64_t j = length + threadIdx.x; j < nodes; j += kThreads) path[j] = -1;
  if (!writes) return;
  p.path_len[b] = length;
  p.bonus[b] = choice;
}

kangaroo_status check_params(const Params& p) {
  const int64_t batch = p.logits.batch, nodes = p.logits.nodes;
  Check check("verify_tree");
  check.gpu_dtype("logits", p.logits.dtype);
  check.states("logits", p.logits);
  check.within("logits.batch", batch, 0, kMaxBlocks);
  check.within("logits.nodes", nodes, 1, INT32_MAX);
  check.within("logits.width", p.logits.width, 1, INT32_MAX);
  check.array("tokens", p.tokens, batch, nodes, sizeof(int64_t));
  check.array("parents", p.parents, batch, nodes, sizeof(int64_t));
  if (p.num_nodes) check.array("num_nodes", p.num_nodes, batch, 1, sizeof(int32_t));
  check.array("path", p.path, batch, nodes, sizeof(int64_t));
  check.array("path_len", p.path_len, batch, 1, sizeof(int32_t));
  check.array("bonus", p.bonus, batch, 1, sizeof(int64_t));
  if (p.successors) check.array("successors", p.successors, batch, nodes, sizeof(int64_t));
  if (p.choices) check.array("choices", p.choices, batch, nodes, sizeof(int64_t));
  return check.status();
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_verify_tree_cuda(const kangaroo_verify_tree_params* params, void* stream) {
  using namespace kangaroo;
  return entry("verify_tree", params, [stream](const Params& p) {
    const kangaroo_status status = check_params(p);
    if (status != KANGAROO_OK) return status;
    const Blocks blocks = {p.logits.batch, kThreads, kWarps * static_cast<int>(sizeof(uint64_t))};
    return launched("verify_tree", by_dtype(p.logits.dtype, [&](auto type) {
                      return launch(_verify_tree_kernel<decltype(type)>, blocks,
                                    static_cast<cudaStream_t>(stream), p);
                    }));
  });
}
