// What calls are made of, and those of them that stand in a file of their own.
#pragma once

#include "calls.h"

namespace testing {

// Sizes that are no matter of each other differ: a test may lower all that have the same value.
constexpr int64_t kBatch = 2, kNodes = 3, kRows = kBatch * kNodes, kWidth = 12, kVocab = 40;
constexpr int64_t kQHeads = 8, kKvHeads = 4, kHeadDim = 10, kSlots = 64, kPositions = 40;
constexpr int64_t kQkvWidth = (kQHeads + 2 * kKvHeads) * kHeadDim, kIntermediate = 14;
constexpr int64_t kLayers = 2, kCacheSize = kBatch * kKvHeads * kSlots * kHeadDim;

inline kangaroo_states new_states(Call& c, int64_t width) {
  return states_of(c.tensor(kRows * width), kBatch, kNodes);
}

inline void add_chain(Call& c, kangaroo_draft_chain& chain) {
  c.address(chain.tokens = c.values(std::vector<int64_t>(8, 1)));
  c.address(chain.positions = c.values(std::vector<int32_t>(8, 30)));
  c.address(chain.num_nodes = c.values(std::vector<int32_t>{1, 2}));
  c.address(chain.stopped = c.values(std::vector<int32_t>{0, 0}));
  chain.threshold = c.floats(kBatch);
  c.address(chain.threshold);
  c.size(chain.batch = kBatch);
  c.size(chain.capacity = 4);
}

// tree_calls.cpp
void add_verify_tree(Call& c, kangaroo_dtype dtype);
void add_commit_path(Call& c, kangaroo_dtype dtype);
void add_grow_tree(Call& c, kangaroo_dtype dtype);
void add_copy_draft(Call& c, kangaroo_dtype dtype);
void add_compact_kv(Call& c, kangaroo_dtype dtype);

}  // namespace testing
