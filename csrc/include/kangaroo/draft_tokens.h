/* draft_tokens: a chain of drafts in one call: shallow layers, adapter, draft head, token by token.
 */
#ifndef KANGAROO_DRAFT_TOKENS_H_
#define KANGAROO_DRAFT_TOKENS_H_

#include "kangaroo/adapter_step.h"
#include "kangaroo/decoder_layers.h"
#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_draft_tokens_params {
  kangaroo_matrix embed; /* [vocab, hidden] */
  /* The target's layers [0, exit layer). Its nodes are those of the longest chain, [1, capacity],
   * without ancestors; h and out are not read. */
  kangaroo_decoder_layers_params layers;
  /* Its nodes are the slots that the adapter has not seen, those of the chain last; h and out are
   * not read. */
  kangaroo_adapter_step_params adapter;
  kangaroo_states exit_states; /* of the adapter's nodes: read, and written from the root on */
  kangaroo_draft_head head;    /* of at most vocab rows */
  kangaroo_vector norm;        /* [hidden], in front of the head */
  int64_t* tokens;             /* [capacity]: the root, and behind it the drafts, written */
  float* confidence;           /* [capacity], written: of the drafts */
  int64_t* num_tokens;         /* [1], written: tokens of the chain, with the root */
  float threshold;             /* drafting stops behind a token that is less sure than this */
  float eps;                   /* of the norm */
  int32_t num_threads;
} kangaroo_draft_tokens_params;

/* The bits of embedding, decoder_layers, adapter_step and top1_confidence in turn. Every token of
 * the chain has gone through the layers, every one but the last through the adapter. Checked as a
 * whole first: a call that fails has written nothing. */
kangaroo_status kangaroo_draft_tokens(const kangaroo_draft_tokens_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_DRAFT_TOKENS_H_ */
