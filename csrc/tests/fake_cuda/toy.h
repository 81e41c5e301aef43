// A toy decoder for tests of the round: its kernels, and what greedy decoding would have written.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "fake_cuda.h"
#include "kangaroo/round.h"

namespace toy {

// Every id comes once in 128 tokens.
inline int64_t target(int64_t token) { return (token * 5 + 3) % 128; }
inline int64_t draft(int64_t token) { return token % 7 == 2 ? target(token) + 128 : target(token); }
inline bool sure(int64_t token) { return token % 5 != 1; }

constexpr int64_t kMaxBatch = 3;
constexpr int64_t kMaxNodes = 8;

// All that lies on the device.
struct Memory {
  int64_t batch = 1;
  int64_t nodes = 1;
  std::array<int64_t, kMaxBatch> root = {};
  std::array<int64_t, kMaxBatch * kMaxNodes> tokens = {};
  std::array<int32_t, kMaxBatch> num_nodes = {};
  std::array<int32_t, kMaxBatch> stopped = {};
  std::array<int32_t, kMaxBatch> path_len = {};
  std::array<int64_t, kMaxBatch> bonus = {};
  std::array<int32_t, kMaxBatch> found = {};
  const int32_t* done = nullptr;
  int num_steps_run = 0;
  int num_found_run = 0;
  int num_tails_run = 0;
};

struct Work {
  Memory* memory;
};

// The chain begins at its root.
void begin_kernel(Work work);
// Of some roots the chain is known without a step; what is run for these.
inline bool known(int64_t root) { return root % 3 == 1; }
void front_kernel(Work work);
void found_kernel(Work work);
void step_kernel(Work work);
void tail_kernel(Work work);

struct Shape {
  kangaroo_round_mode mode = KANGAROO_ROUND_CONDITIONAL;
  int64_t num_steps = 3;
  int64_t batch = 1;
  int64_t ahead = 1;
  std::vector<int64_t> eos_ids = {};
  bool fronted = false;
  bool entered = true;  // a front has what is run for drafts that were found
};

// A decoder, its round and its stream; everything is given back at the end.
class Decoder {
 public:
  explicit Decoder(const Shape& shape);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  kangaroo_round_config config() const;
  kangaroo_status create() { return create(config()); }
  kangaroo_status create(const kangaroo_round_config& config);
  kangaroo_status capture();
  kangaroo_status start(int64_t sequence, int32_t max_tokens);
  kangaroo_status launch() { return kangaroo_round_launch(round, stream); }
  // One more round, read; its tokens behind those of the sequences.
  kangaroo_status step();
  // Rounds until every sequence is done; the same, launched as far ahead as may be.
  kangaroo_status run();
  void keep(const kangaroo_round_result& result);

  Shape shape;
  Memory memory;
  cudaStream_t stream = fake::new_stream();
  kangaroo_round* round = nullptr;
  std::vector<std::vector<int64_t>> written;
  std::vector<int32_t> done;
  std::vector<int32_t> num_drafted;
  std::vector<int32_t> num_accepted;
  int num_rounds = 0;
  int64_t num_steps = 0;  // that the last round says were run
};

// Greedy tokens behind `root`, cut behind the first end and at the budget.
std::vector<int64_t> expected(int64_t root, const std::vector<int64_t>& eos_ids,
                              int32_t max_tokens);
// Steps that have anything to do in a round that begins at these roots.
int steps_needed(const std::vector<int64_t>& roots, const Shape& shape);

}  // namespace toy
