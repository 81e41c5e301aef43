/* What top1_confidence, topk_confidence and draft_logits share: the head that drafts are taken
 * from, and the chains of drafts that they append to. */
#ifndef KANGAROO_DRAFT_HEAD_H_
#define KANGAROO_DRAFT_HEAD_H_

#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_draft_head {
  kangaroo_matrix weight;   /* [vocab, width], of the dtype of the states; on the CPU also int8 */
  const int32_t* token_ids; /* [num_ids] strictly increasing: rows that may be drafted; NULL: all */
  int64_t num_ids;          /* 0 where token_ids is NULL */
  const float* scale;       /* [vocab], by which rows of int8 are multiplied; NULL for others */
} kangaroo_draft_head;

/* One chain per sequence; node 0 is its root. */
typedef struct kangaroo_draft_chain {
  int64_t* tokens;        /* [batch, capacity] */
  int32_t* positions;     /* [batch, capacity], RoPE indices */
  int32_t* num_nodes;     /* [batch], nodes so far */
  int32_t* stopped;       /* [batch], not 0: nothing is drafted behind the newest node */
  const float* threshold; /* [batch], the confidence below which drafting stops */
  int64_t batch;
  int64_t capacity;
} kangaroo_draft_chain;

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_DRAFT_HEAD_H_ */
