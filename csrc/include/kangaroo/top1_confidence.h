/* top1_confidence: argmax and maximum of softmax(rms_norm(h) W_head^T), in float32. */
#ifndef KANGAROO_TOP1_CONFIDENCE_H_
#define KANGAROO_TOP1_CONFIDENCE_H_

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_top1_confidence_params {
  kangaroo_states h;
  kangaroo_draft_head head;
  kangaroo_vector norm; /* [h.width] */
  int64_t* tokens;      /* [batch, nodes], written; ties go to the lowest id */
  float* confidence;    /* [batch, nodes], written */
  /* NULL, or h.batch chains: where one has not stopped, the token of its sequence's last node is
   * appended; it stops where that was not sure enough, or at its capacity. */
  const kangaroo_draft_chain* chain;
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_top1_confidence_params;

/* The bits of a row depend neither on how many there are nor on num_threads. */
kangaroo_status kangaroo_top1_confidence(const kangaroo_top1_confidence_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TOP1_CONFIDENCE_H_ */
