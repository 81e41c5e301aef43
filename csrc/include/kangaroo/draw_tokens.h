/* draw_tokens: rows of logits draw tokens, by numbers that belong to seed, place and token. */
#ifndef KANGAROO_DRAW_TOKENS_H_
#define KANGAROO_DRAW_TOKENS_H_

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"
#include "kangaroo/topk_confidence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What each sequence asks for: tokens of softmax(logits / temperature), of which the warps keep a
 * part, in the order in which they stand here; tokens of equal logits stay or go together. */
typedef struct kangaroo_draws {
  const double* temperature; /* [batch], at least 0; 0: the most probable, whatever else is asked */
  const int32_t* top_k;      /* [batch]: so many of the most probable; 0: all */
  const double* top_p;       /* [batch], 0 to 1: of these, tokens behind more probable ones that
                                weigh less than this part of all; 1: all */
  const double* min_p;       /* [batch], 0 to 1: of these, tokens with at least this part of the
                                probability of the best */
  const int64_t* seed;       /* [batch], 64 bits */
  const int64_t* sequence;   /* [batch], 0 to 2^32 - 1, its number among those of one seed */
} kangaroo_draws;

typedef struct kangaroo_draw_tokens_params {
  kangaroo_states logits; /* [batch, nodes, width], float32 */
  kangaroo_draws draws;
  const int32_t* positions; /* [batch, nodes], 0 to 2^31 - 2, of the nodes: what is drawn is for the
                               position behind */
  const int32_t* token_ids; /* [logits.width] strictly increasing, of the columns; NULL: 0 and on */
  int64_t* tokens; /* [batch, nodes, k], written: the best first, ties to the lowest id; -1 where
                      the largest logit of the row is not finite */
  float* shares;   /* [batch, nodes, k], written: exp(score) in the sum over all that are kept; 0 of
                      the others, which come last */
  int64_t k;       /* 1 to KANGAROO_MAX_K, and at most logits.width */
  /* NULL, or logits.batch chains: see kangaroo_top1_confidence_params; the share is how sure the
   * token is. Of a row whose tokens are -1 token 0 is appended. */
  const kangaroo_draft_chain* chain;
  int32_t num_threads; /* on the CPU */
} kangaroo_draw_tokens_params;

/* The k best scores: (logit - the largest) / temperature - log(-log u), in double, where u is
 * 2^-53 times the first 53 bits of Philox 4x32-10 of (position + 1, sequence, 3, token) under the
 * seed, the last bit set; at temperature 0 logit - the largest. NaN is the largest logit. The bits
 * of a row depend neither on how many there are nor on num_threads. */
kangaroo_status kangaroo_draw_tokens(const kangaroo_draw_tokens_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_DRAW_TOKENS_H_ */
