// What the ops on a draft head share.
#pragma once

#include "check.h"
#include "isa/kernels.h"
#include "kangaroo/draft_head.h"

namespace kangaroo {

// Logits are summed in blocks of this many tokens, at absolute multiples, and combined in order.
constexpr int64_t kHeadBlock = 240;  // a multiple of every tile width of the GEMM

inline int64_t num_ids(const kangaroo_draft_head& head) {
  return head.token_ids ? head.num_ids : head.weight.rows;
}

void check_head(Check& c, const kangaroo_states& h, const kangaroo_draft_head& head,
                const kangaroo_vector& norm);

// Rows of h laid out for `head_logits`, normalised; in this thread's scratch, until the next call.
const char* packed_for(const kangaroo_draft_head& head, const kangaroo_states& h,
                       const kangaroo_vector& norm, float eps, int32_t num_threads);

// out[:, :count] <- logits of tokens [begin, begin + count) of the head.
void head_logits(const kangaroo_draft_head& head, const kangaroo_states& h, const char* panel,
                 int64_t begin, int64_t count, const Rows& out);

}  // namespace kangaroo
