#include <algorithm>
#include <cstring>
#include <vector>

#include "round_graph.h"
#include "round_memory.h"

namespace kangaroo {

// [done][remaining][published][num_steps], copied as one from the host. `done` comes first, where
// it is aligned as widely as any allocation: compilers of callers' kernels choose by that.
kangaroo_status RoundMemory::allocate_state(int64_t batch) {
  const auto size = static_cast<std::size_t>(batch);
  const std::size_t bytes = size * 2 * sizeof(int32_t) + 2 * sizeof(uint64_t);
  void* data = nullptr;
  if (auto bad = tried("cudaMalloc", cudaMalloc(&data, bytes))) return bad;
  device_.reset(data);
  state_.done = static_cast<int32_t*>(data);
  state_.remaining = state_.done + batch;
  state_.published = reinterpret_cast<uint64_t*>(state_.remaining + batch);
  state_.num_steps = state_.published + 1;
  std::vector<int32_t> initial(bytes / sizeof(int32_t), 0);
  std::fill_n(initial.begin(), size, 1);
  const auto error = cudaMemcpy(data, initial.data(), bytes, cudaMemcpyHostToDevice);
  if (auto bad = tried("cudaMemcpy", error)) return bad;
  // The copy may return before it has arrived, and other streams do not wait for it.
  return tried("cudaStreamSynchronize", cudaStreamSynchronize(nullptr));
}

kangaroo_status RoundMemory::allocate(const kangaroo_round_config& config) {
  if (auto bad = allocate_state(config.batch)) return bad;
  host_ring_.num_slots = config.ahead + 1;
  host_ring_.batch = config.batch;
  const int64_t word = sizeof(uint64_t);
  host_ring_.slot_bytes = word * (2 + 2 * config.batch + config.batch * config.nodes);
  const auto bytes = static_cast<std::size_t>(host_ring_.num_slots * host_ring_.slot_bytes);
  void* data = nullptr;
  const auto error = cudaHostAlloc(&data, bytes, cudaHostAllocMapped | cudaHostAllocPortable);
  if (auto bad = tried("cudaHostAlloc", error)) return bad;
  host_.reset(data);
  std::memset(data, 0, bytes);
  host_ring_.data = static_cast<unsigned char*>(data);
  void* seen_by_device = nullptr;
  const auto mapped = cudaHostGetDevicePointer(&seen_by_device, data, 0);
  if (auto bad = tried("cudaHostGetDevicePointer", mapped)) return bad;
  device_ring_ = host_ring_;
  device_ring_.data = static_cast<unsigned char*>(seen_by_device);
  return KANGAROO_OK;
}

bool RoundMemory::read(uint64_t round, kangaroo_round_result* result) const {
  const RoundSlot slot = slot_of(host_ring_, round);
  *result = {};
  if (__atomic_load_n(slot.sequence, __ATOMIC_ACQUIRE) != round + 1) return false;
  result->ready = 1;
  result->round = static_cast<int64_t>(round);
  result->num_steps = static_cast<int64_t>(*slot.num_steps);
  result->num_tokens = slot.num_tokens;
  result->done = slot.done;
  result->num_nodes = slot.num_nodes;
  result->path_len = slot.path_len;
  result->tokens = slot.tokens;
  return true;
}

}  // namespace kangaroo
