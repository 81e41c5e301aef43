// h + (W_o attention(W_qkv rms_norm(h)) + b_o): half a decoder layer, and all of the adapter.
#pragma once

#include "check.h"

namespace kangaroo {

// Biases and head norms may be absent.
struct AttentionBlock {
  kangaroo_vector norm;
  kangaroo_matrix qkv;
  kangaroo_vector qkv_bias;
  kangaroo_vector q_norm;
  kangaroo_vector k_norm;
  kangaroo_matrix o;  // its width is that of all query heads
  kangaroo_vector o_bias;
  kangaroo_kv kv;
  kangaroo_rope rope;
  kangaroo_nodes nodes;
  float eps;
  int32_t num_threads;
};

void check(Check& c, const AttentionBlock& block, const kangaroo_states& h,
           const kangaroo_states& out);

// Appends to the cache; out aliases nothing.
void run(const AttentionBlock& block, const kangaroo_states& h, const kangaroo_states& out);

}  // namespace kangaroo
