// What a kangaroo_round is; its capture is in round_capture.cu, its life and its launches in
// round.cu.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "error.h"
#include "kangaroo/round.h"
#include "round_graph.h"
#include "round_kernels.h"
#include "round_memory.h"

namespace kangaroo {

// In the order of a capture; those before and behind what was found only in rounds that have a
// front.
enum class RoundStage {
  kIdle,
  kBeforeFront,
  kInFront,
  kBetweenSteps,
  kInStep,
  kInFound,
  kBeforeTail,
  kInTail,
  kBehindTail
};

inline kangaroo_status given(const kangaroo_round* round, const char* call) {
  return round ? KANGAROO_OK : invalid("round: %s: expected a round, got NULL", call);
}

}  // namespace kangaroo

struct kangaroo_round {
  using Graph = kangaroo::Graph;
  using Stage = kangaroo::RoundStage;

  explicit kangaroo_round(const kangaroo_round_config& c) : config(c) {
    std::copy_n(c.eos_ids, c.num_eos, eos_ids);
    config.eos_ids = eos_ids;
  }

  bool conditional() const { return config.mode != KANGAROO_ROUND_EARLY_RETURN; }
  bool fronted() const { return config.found != nullptr; }
  uint64_t unread() const { return launched - read; }

  // Refuses a call at another stage, before all steps, or with another device current, than it
  // needs.
  kangaroo_status at_stage(const char* call, Stage expected) const;
  kangaroo_status behind_steps(const char* call) const;
  kangaroo_status on_own_device(const char* call) const;

  // The kernels between the caller's pieces, and the IF nodes that they lead to.
  kangaroo_status open();
  kangaroo_status gate(const int32_t* flags, bool of_step);
  kangaroo_status close();
  // Out of steps that are nested.
  kangaroo_status leave_steps();
  // Makes the graph what `launch` launches.
  kangaroo_status adopt(Graph graph);
  kangaroo_status wait_for_device();
  void abort() {
    builder.abandon();
    stage = Stage::kIdle;
  }

  kangaroo_round_config config;
  int64_t eos_ids[KANGAROO_ROUND_MAX_EOS] = {};
  int device = 0;
  kangaroo::RoundMemory memory;
  // CUDA does not say whether conditions outlive the graph that they were made in: the graph that
  // was instantiated and the one that it was last updated with stay as long as the executable.
  Graph instantiated;
  Graph latest;
  kangaroo::GraphExec exec;
  int64_t instantiations = 0;
  kangaroo::GraphBuilder builder;
  Stage stage = Stage::kIdle;
  cudaStream_t capture_stream = nullptr;
  int64_t next_step = 0;
  cudaStream_t stream = nullptr;  // of the newest launch
  bool used = false;              // something was launched
  uint64_t launched = 0;
  uint64_t read = 0;
};
