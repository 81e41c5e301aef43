/* draft_logits: rms_norm(h) W_head^T of the tokens that may be drafted, in float32. */
#ifndef KANGAROO_DRAFT_LOGITS_H_
#define KANGAROO_DRAFT_LOGITS_H_

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_draft_logits_params {
  kangaroo_states h;
  kangaroo_draft_head head;
  kangaroo_vector norm; /* [h.width] */
  kangaroo_states out;  /* [batch, nodes, tokens of the head] float32, written */
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_draft_logits_params;

/* The bits of a row depend neither on how many there are nor on num_threads. */
kangaroo_status kangaroo_draft_logits(const kangaroo_draft_logits_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_DRAFT_LOGITS_H_ */
