// What the ops on a draft head share.
#pragma once

#include "check.h"
#include "isa/kernels.h"
#include "kangaroo/draft_head.h"

namespace kangaroo {

// Logits are summed in blocks of this many tokens, at absolute multiples, and combined in order.
constexpr int64_t kHeadBlock = 192;  // a multiple of every outputs_together

inline int64_t num_ids(const kangaroo_draft_head& head) {
  return head.token_ids ? head.num_ids : head.weight.rows;
}

void check_head(Check& c, const kangaroo_states& h, const kangaroo_draft_head& head,
                const kangaroo_vector& norm);

// NULL, or a chain for each sequence of `states`, in which there is a node to append.
void check_chain(Check& c, const kangaroo_draft_chain* chain, const char* nodes,
                 const kangaroo_states& states);

// The next token of each sequence and how sure it is, `apart` from one to the next, become nodes of
// their chains, unless drafting has stopped; -1 becomes token 0.
void append(const kangaroo_draft_chain& c, const int64_t* tokens, const float* confidence,
            int64_t apart);

// Rows of h laid out for `head_logits`, normalised; in this thread's scratch, until the next call.
const char* packed_for(const kangaroo_draft_head& head, const kangaroo_states& h,
                       const kangaroo_vector& norm, float eps, int32_t num_threads);

// out[:, :count] <- logits of tokens [begin, begin + count) of the head.
void head_logits(const kangaroo_draft_head& head, const kangaroo_states& h, const char* panel,
                 int64_t begin, int64_t count, const Rows& out);

}  // namespace kangaroo
