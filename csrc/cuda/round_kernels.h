// The round's own kernels: one block of kRoundThreads threads each, one parameter each.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kangaroo/round.h"

namespace kangaroo {

constexpr unsigned kRoundThreads = 32;  // one warp, whose lanes take sequences in turns

// What a round keeps on the device.
struct RoundState {
  uint64_t* published;  // rounds so far
  uint64_t* num_steps;  // that were run in this round
  int32_t* done;        // [batch]
  int32_t* remaining;   // [batch], tokens that a sequence may still write
};

// A slot of the ring, in host memory: its sequence number and steps, then counts, flags and tokens.
struct RoundSlot {
  uint64_t* sequence;  // number of the round plus one, written last
  uint64_t* num_steps;
  int32_t* num_tokens;
  int32_t* done;
  int32_t* num_nodes;
  int32_t* path_len;
  int64_t* tokens;
};

struct RoundRing {
  unsigned char* data;
  int64_t num_slots;
  int64_t slot_bytes;
  int64_t batch;
};

__host__ __device__ inline RoundSlot slot_of(const RoundRing& ring, uint64_t round) {
  const uint64_t turn = round % static_cast<uint64_t>(ring.num_slots);
  unsigned char* const first = ring.data + turn * static_cast<uint64_t>(ring.slot_bytes);
  RoundSlot slot;
  slot.sequence = reinterpret_cast<uint64_t*>(first);
  slot.num_steps = slot.sequence + 1;
  slot.num_tokens = reinterpret_cast<int32_t*>(slot.num_steps + 1);
  slot.done = slot.num_tokens + ring.batch;
  slot.num_nodes = slot.done + ring.batch;
  slot.path_len = slot.num_nodes + ring.batch;
  slot.tokens = reinterpret_cast<int64_t*>(slot.path_len + ring.batch);
  return slot;
}

struct RoundStartParams {
  RoundState state;
  int64_t sequence;
  int32_t max_tokens;
};

struct RoundOpenParams {
  RoundState state;
  int32_t* stopped;
  int32_t* num_nodes;
  int64_t batch;
  uint64_t num_steps;  // that are run without a gate
  cudaGraphConditionalHandle handle;
  bool conditional;
};

struct RoundGateParams {
  RoundState state;
  const int32_t* flags;
  bool of_step;
  int64_t batch;
  cudaGraphConditionalHandle handle;
};

struct RoundPublishParams {
  RoundState state;
  RoundRing ring;
  const int64_t* tokens;
  const int64_t* path;
  const int32_t* path_len;
  const int64_t* bonus;
  const int32_t* num_nodes;
  int64_t nodes;
  int64_t token_stride;
  int64_t path_stride;
  int64_t num_eos;
  int64_t eos_ids[KANGAROO_ROUND_MAX_EOS];
};

// Gives a sequence its budget.
__global__ void _round_start_kernel(RoundStartParams p);
// Resets `stopped`, `num_nodes` and the count of steps; the round's condition: not every sequence
// is done.
__global__ void _round_open_kernel(RoundOpenParams p);
// The condition of a step, under which it is counted: a flag, of sequences that have stopped, is 0;
// or that of what is run for drafts that were found: a flag is not.
__global__ void _round_gate_kernel(RoundGateParams p);
// Cuts the round's tokens at the first end and at the budget, and hands them to the host.
__global__ void _round_publish_kernel(RoundPublishParams p);

}  // namespace kangaroo
